"""A small output to export."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tierscale.jobs.cli.main import main


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey picture of 1100 × 200 pixels, 300 to the inch: an ingest of three strips."""
    path = tmp_path_factory.mktemp("source") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (1100, 200), np.uint8)
    Image.fromarray(pixels).save(path, dpi=(300, 300))
    return path


@pytest.fixture(scope="session")
def output(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of it enlarged by four; tests only read it."""
    path = tmp_path_factory.mktemp("made") / "out.zarr"
    line = ["--tiers", "bicubic", "--ray", "none", "--region", "0,0,200,300"]
    with pytest.raises(SystemExit) as ended:
        main(["upscale", str(source), str(path), *line])
    assert not ended.value.code
    return path
