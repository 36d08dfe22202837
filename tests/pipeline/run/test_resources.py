"""What a plan says that it takes, and what is refused for it before any pixel is enlarged."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run import resources as needs

BICUBIC = Options(tiers=("bicubic",))
GIB = 1 << 30


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(
        path, progressive=True
    )
    return path


def test_what_a_decoder_takes_is_in_the_plans_memory(photo):
    plan, found = prepare.draft(str(photo), BICUBIC, None, "cpu", 2)
    with open_image(photo) as image:
        assert found.needs_ingest and found.decode_bytes == image.decode_bytes > 0
    bare = needs.memory(plan, replace(found, decode_bytes=0), 2)
    assert (
        needs.memory(plan, replace(found, decode_bytes=8 * GIB), 2) > 8 * GIB + needs.DRIVER_BYTES
    )
    assert needs.memory(plan, replace(found, decode_bytes=1), 2) == bare, (
        "ingesting is over before enlarging begins"
    )
    in_place = replace(found, needs_ingest=False, decode_bytes=GIB)
    grown = needs.memory(plan, in_place, 2) - needs.memory(
        plan, replace(in_place, decode_bytes=0), 2
    )
    assert grown == 2 * GIB, "every worker reads the source"


def test_a_source_that_cannot_be_decoded_beside_the_workers_is_refused(photo, monkeypatch):
    def opened(*arguments):
        image = open_image(*arguments)
        image.decode_bytes = 3 * GIB
        return image

    monkeypatch.setattr(prepare, "open_image", opened)
    with pytest.raises(
        Refused, match=r"needs 4\.\d+ GiB with 1 workers, but 4\.00 GiB .* --max-memory \d+"
    ):
        prepare.draft(str(photo), BICUBIC, 4 * GIB, "cpu", 1)
    assert prepare.draft(str(photo), BICUBIC, 5 * GIB, "cpu", 1)[1].decode_bytes == 3 * GIB
