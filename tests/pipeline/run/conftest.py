"""A photo, and the output that a command made of it."""

from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tierscale.jobs.cli.main import main


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour photo of 300 × 340 pixels, 300 to the inch."""
    path = tmp_path_factory.mktemp("photo") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[:300, :340]).save(path, dpi=(300, 300))
    return path


@pytest.fixture(scope="session")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo enlarged by four; tests only read it."""
    output = tmp_path_factory.mktemp("made") / "coffee.zarr"
    line = ["--tiers", "bicubic,fsrcnn-x4", "--tile", "32", "--ray", "none"]
    with pytest.raises(SystemExit) as ended:
        main(["upscale", str(photo), str(output), *line])
    assert not ended.value.code
    return output
