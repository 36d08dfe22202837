"""The plan of the house: where tests lie, what each has, and how large things may be."""

import ast
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


def names_of_tests(tree: ast.Module) -> set[str]:
    """Functions of a test module, and what it imports from other modules of tests."""
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("tests.")]
    return own | {alias.asname or alias.name for node in ours for alias in node.names}


def asserts(node: ast.AST, helpers: set[str]) -> bool:
    """Whether a statement is an assertion.

    An assert, pytest.raises, something called assert_…, or a helper of tests called check….
    """
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
    checks = name.startswith("check") and name in helpers
    return checks or name.startswith("assert_") or name in ("raises", "warns", "fail")


def without_assertion(code: str) -> list[str]:
    """The tests in the code of a module that assert nothing."""
    tree = ast.parse(code)
    helpers = names_of_tests(tree)
    tests = [node for node in functions(tree) if node.name.startswith("test_")]
    return [test.name for test in tests if not any(asserts(n, helpers) for n in ast.walk(test))]


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize("test", sorted((ROOT / "tests").rglob("test_*.py")), ids=relative)
def test_every_test_asserts_something(test):
    assert without_assertion(test.read_text()) == []


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ("assert x", False),
        ("with pytest.raises(ValueError): f()", False),
        ("np.testing.assert_array_equal(a, b)", False),
        ("check(a)", False),
        ("check_memory(a)", True),
        ("f()", True),
    ],
)
def test_a_test_without_assertion_is_found(body, bad):
    code = f"def check(a): ...\n\ndef test_a():\n    {body}\n"
    assert bool(without_assertion(code)) == bad


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_modules_functions_and_lines_are_short(module):
    """Functions are counted from `def` to their last line, signature and docstring included.

    Lines are counted here as well as by ruff, which passes those that it is told to ignore.
    """
    text = module.read_text()
    lines = text.splitlines()
    assert len(lines) <= 300
    assert [number for number, line in enumerate(lines, 1) if len(line) > 100] == []
    lengths = [(f.name, (f.end_lineno or 0) - f.lineno + 1) for f in functions(ast.parse(text))]
    assert [(name, length) for name, length in lengths if length > 45] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_no_folder_holds_more_than_twelve_modules(folder):
    assert len(list(folder.glob("*.py"))) <= 12
