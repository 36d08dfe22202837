"""What several test modules share."""

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# By itself a plan is float32 in tests, whatever this machine has, also in the processes that they
# start: oneDNN is told to leave bfloat16 alone, which it then makes of float32 where tests ask for
# it. Tests of precision say otherwise.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"
# Where the reference data lie, unless the variable names another folder.
DEFAULT_REFERENCE = ROOT.parent / "shared"

# How long an example takes is the affair of the machine, which may be busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def reference_folder() -> Path:
    """Where the reference data are, or would be."""
    return Path(os.environ.get("TIERSCALE_SHARED") or DEFAULT_REFERENCE).resolve()


def reference_expected(environment: Mapping[str, str], default: Path) -> bool:
    """Whether the reference data should be here: the variable names them, or the folder exists."""
    return bool(environment.get("TIERSCALE_SHARED")) or default.exists()


def fail_hidden_skip(report: pytest.TestReport, expected: bool) -> None:
    """Make a skip for missing reference data a failure where the data should be here.

    Such a skip is known by its reason, which names TIERSCALE_SHARED.
    """
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if report.skipped and expected and "TIERSCALE_SHARED" in reason:
        report.outcome = "failed"
        report.longrepr = f"{reason}, and they should be here: a skip would hide a failure"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_hidden_skip(report, reference_expected(os.environ, DEFAULT_REFERENCE))
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data; tests that need it are skipped, visibly, where it is absent."""
    path = reference_folder()
    if not (path / "data").is_dir():
        pytest.skip(f"no reference data at {path}; set TIERSCALE_SHARED")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders with an image, an empty one for outputs, and links out of it and inside it."""
    for name in ("out/sub", "elsewhere", "in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/leads_out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/leads_in").symlink_to(tmp_path / "out/sub")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in/a.png")
    return tmp_path
