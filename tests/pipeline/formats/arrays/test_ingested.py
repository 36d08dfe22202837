"""A copy of a source that is taken away while it is read is damage, and never black."""

import time

import pytest
import skimage.data
import zarr
from PIL import Image

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.arrays.ingest import discard, ingest
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.storage.paths import place


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "stars.png"
    Image.fromarray(skimage.data.hubble_deep_field()[100:388, 200:500]).save(path)
    return path


def test_a_copy_that_is_gone_or_another_is_damage_and_never_black(source, tmp_path):
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    with open_image(copy) as opened, open_image(source) as image:
        assert opened.read(0, 288, 0, 300).any()
        discard(place(copy))
        with pytest.raises(
            Damaged,
            match=(
                r"copy\.zarr was removed by another run while it was read; run the same command"
                r" again"
            ),
        ):
            opened.read(0, 288, 0, 300)
        time.sleep(0.01)
        ingest(image, copy)
        assert opened.read(0, 288, 0, 300).any(), "the same copy made anew is as good"
        zarr.open_array(copy, mode="r+").update_attributes(
            {"tierscale_source": {"complete": False}}
        )
        with pytest.raises(Damaged, match="removed"):
            opened.read(0, 288, 0, 300)


def test_a_copy_that_goes_while_it_is_read_is_noticed(source, tmp_path, monkeypatch):
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    with open_image(copy) as opened:
        whole = type(opened.pixels.array).__getitem__

        def interrupted(self, at):
            discard(place(copy))
            return whole(self, at)

        monkeypatch.setattr(type(opened.pixels.array), "__getitem__", interrupted)
        with pytest.raises(Damaged, match="removed"):
            opened.read(0, 288, 0, 300)
