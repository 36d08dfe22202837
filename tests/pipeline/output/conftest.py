"""A finished output, and the command that made it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tierscale.jobs.cli.main import main

TIERS = ("bicubic", "fsrcnn-x4")
OPTIONS = ("--ray", "none", "--workers", "1", "--tile", "32", "--tiers", ",".join(TIERS))


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; its exit code, stdout and stderr."""

    def captured(*arguments: object) -> tuple[int, str, str]:
        code = run(*arguments)
        return code, *capsys.readouterr()

    return captured


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small colour photo, 150 × 200 pixels."""
    path = tmp_path_factory.mktemp("photo") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[:150, :200]).save(path)
    return path


@pytest.fixture(scope="session")
def output(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo enlarged by four for half the full cost; tests only read it."""
    path = tmp_path_factory.mktemp("output") / "coffee.zarr"
    assert run("upscale", photo, path, *OPTIONS, "--budget", "0.5") == 0
    return path
