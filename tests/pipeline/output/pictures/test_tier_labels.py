"""The tiers of an output as NGFF labels: where their tiles lie, what they are called."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image_label import ImageLabel

from tests.commands import tierscale
from tests.pipeline.formats.pictures import picture

TIERS = ("--tiers", "bicubic,fsrcnn-x4", "--ray", "none", "--tile", "32", "--budget", "0.5")


@pytest.fixture
def output(tmp_path, capsys):
    """An output of two tiers, at x4; 5 x 3 tiles of 32 pixels, the last ones cut."""
    tifffile.imwrite(tmp_path / "a.tif", picture(70, 150, 3), photometric="rgb")
    command = ("upscale", tmp_path / "a.tif", tmp_path / "out.zarr", *TIERS, "--consolidated")
    code, _, said = tierscale(capsys, *command)
    assert code == 0, said
    return tmp_path / "out.zarr"


def test_tiers_are_labels_that_lie_over_their_tiles(output):
    group = zarr.open_group(f"{output}/labels/tiers", mode="r")
    assert zarr.open_group(f"{output}/labels", mode="r").attrs["ome"]["labels"] == ["tiers"]
    ImageLabel.from_zarr(group)
    values = group["0"][0]
    assert values.shape == (3, 5) and set(np.unique(values)) == {1, 2}
    said = group.attrs["ome"]["image-label"]
    assert [one["tier"] for one in said["properties"]] == ["bicubic", "fsrcnn-x4"]
    assert [one["label-value"] for one in said["colors"]] == [1, 2]
    scale, translation = group.attrs["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    # In pixels of the source: tiles of 32, and the centre of the first one.
    assert scale["scale"] == [1, 32, 32]
    assert translation["translation"] == [0, 15.5, 15.5]


def test_consolidated_metadata_tell_all_arrays_and_leave_the_output_as_it_is(output, capsys):
    stored = json.loads((output / "zarr.json").read_text())
    assert {"0", "labels", "labels/tiers", "labels/tiers/0"} <= set(
        stored["consolidated_metadata"]["metadata"]
    )
    assert tierscale(capsys, "verify", output)[0] == 0
    again = ("upscale", output.parent / "a.tif", output, *TIERS, "--json")
    assert json.loads(tierscale(capsys, *again)[1])["shards"]["written"] == 0
    with_labels = json.loads((output / "zarr.json").read_text())
    assert with_labels["attributes"] == stored["attributes"]
