"""What a plan says that it takes, and what is refused for it before any pixel is enlarged."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.run.draft import inspect_file
from tierscale.pipeline.run.resources import DRIVER_BYTES, check_least, check_memory, memory_bytes

BICUBIC = Options(tiers=("bicubic",))
GIB = 1 << 30


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(
        path, progressive=True
    )
    return path


@pytest.fixture
def inspected(photo):
    return inspect_file(str(photo), BICUBIC, None, Hardware())


def test_what_a_decoder_takes_is_in_the_plans_memory(photo, inspected):
    draft, info = inspected.draft, inspected.source
    with open_image(photo) as image:
        assert info.needs_ingest and info.decode_bytes == image.decode_bytes > 0
    bare = memory_bytes(draft, replace(info, decode_bytes=0), 2)
    assert memory_bytes(draft, replace(info, decode_bytes=8 * GIB), 2) > 8 * GIB + DRIVER_BYTES
    assert memory_bytes(draft, replace(info, decode_bytes=1), 2) == bare, (
        "ingesting is over before enlarging begins"
    )
    in_place = replace(info, needs_ingest=False, decode_bytes=GIB)
    grown = memory_bytes(draft, in_place, 2) - memory_bytes(
        draft, replace(in_place, decode_bytes=0), 2
    )
    assert grown == 2 * GIB, "every worker reads the source"


def test_a_source_that_cannot_be_decoded_beside_the_workers_is_refused(inspected):
    draft, info = inspected.draft, replace(inspected.source, decode_bytes=3 * GIB)
    with pytest.raises(
        Refused, match=r"needs 4\.\d+ GiB with 1 worker, but only 4\.00 GiB .* --max-memory \d+"
    ):
        check_memory(draft, info, 4 * GIB, 1)
    check_memory(draft, info, 5 * GIB, 1)


def test_what_a_smaller_tile_would_fit_in_is_said_with_the_tile(inspected):
    info = replace(inspected.source, decode_bytes=0)
    large = replace(inspected.draft, shape=(3, 30_000, 30_000), tile=1024)
    needed = memory_bytes(large, info, 1)
    smaller = memory_bytes(replace(large, tile=512), info, 1)
    assert smaller < needed
    with pytest.raises(Refused, match=rf"; give --tile 512, or --max-memory {needed}$"):
        check_memory(large, info, (smaller + needed) // 2, 1)
    check_memory(replace(large, tile=512), info, (smaller + needed) // 2, 1)


def test_memory_that_no_image_fits_in_is_refused():
    with pytest.raises(Refused, match=r"with 2 workers, but only 1\.00 GiB .* lower --workers"):
        check_least(GIB, 2)
    check_least(3 * GIB, 2)
