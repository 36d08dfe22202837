"""The plan of the house: where tests lie, and how large modules, functions and folders may be."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = ("models", "pipeline", "cluster", "jobs")
MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
FOLDERS = sorted({path.parent for path in MODULES})
TESTS = [path for layer in LAYERS for path in sorted((ROOT / "tests" / layer).rglob("test_*.py"))]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def subjects(folder: Path) -> set[str]:
    """What a test may be named after: modules of a folder, and folders in it without code."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    others = {path.name for path in folder.iterdir() if path.is_dir() and path not in FOLDERS}
    return modules | others - {"__pycache__"}


def is_named_after(test: str, names: Iterable[str]) -> bool:
    """Whether test_NAME is that of a module, or of one aspect of it (test_MODULE_aspect)."""
    name = test.removeprefix("test_")
    return any(name == known or name.startswith(known + "_") for known in names)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if subjects(f)], ids=relative)
def test_every_folder_of_code_has_tests_in_a_folder_of_the_same_name(folder):
    mirror = ROOT / "tests" / folder.relative_to(ROOT)
    assert list(mirror.glob("test_*.py")), f"{relative(folder)} has no tests in {relative(mirror)}"


@pytest.mark.parametrize("test", TESTS, ids=relative)
def test_every_test_is_named_after_a_module_of_the_mirrored_folder(test):
    folder = ROOT / test.parent.relative_to(ROOT / "tests")
    assert folder in FOLDERS, f"there is no folder {relative(folder)}"
    assert is_named_after(test.stem, subjects(folder)), (
        f"{relative(folder)} has no module that {test.name} could test; "
        "tests of several packages at once belong in tests/end_to_end/"
    )


def test_an_aspect_of_a_module_is_told_from_another_name():
    assert is_named_after("test_nightly_limits", {"nightly"})
    assert not is_named_after("test_nights", {"night", "nightly"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_documents_name_files_of_tests_that_exist(document):
    named = re.findall(r"\btests/[\w/]+\.(?:py|json|gz|md)\b", document.read_text())
    missing = {path for path in named if not (ROOT / path).exists()}
    assert not missing, f"{relative(document)} names {missing}"
