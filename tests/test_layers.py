"""Imports go one way: jobs → cluster → pipeline → models. Ray is a detail of cluster, and of
nothing else.
"""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = ("models", "pipeline", "cluster", "jobs")
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
# Packages (and modules) of pipeline, low to high; those of one row do not import each other.
ROWS = (
    ("errors", "geometry"),
    ("plan", "storage"),
    ("formats", "routing", "inference"),
    ("output",),
    ("run",),
    ("open", "dataset", "view"),
)
FLOOR = {package: floor for floor, row in enumerate(ROWS) for package in row}
# (package, package it should not import) that still does. The list is to be emptied, not extended.
KNOWN = {
    ("plan", "inference"),
    ("plan", "routing"),
    ("routing", "inference"),
    ("run", "dataset"),
}
# What training and inference may lean on, so that they run where nothing else is installed.
MODELS_MAY = {"torch", "numpy", "safetensors", "PIL", "tierscale"}


def imports(path: Path) -> set[str]:
    """Full names of all modules, or of names in modules, that a file imports, also inside
    functions.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, (
                f"{path.name} line {node.lineno} imports by a relative name"
            )
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def first_names(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_a_layer_above_its_own(path):
    own = LAYERS.index(path.relative_to(ROOT).parts[0])
    layers = {name.split(".")[1] for name in imports(path) if name.startswith("tierscale.")}
    above = layers & set(LAYERS[own + 1 :])
    assert not above, f"{path.name} imports {above}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_is_imported_through_the_one_name(path):
    bare = first_names(path) & {*LAYERS, "tests", "benchmarks"}
    assert not bare, f"{path.name} imports {bare} without tierscale. before it"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.relative_to(ROOT).parts[0] in ("models", "pipeline")],
    ids=lambda p: p.name,
)
def test_ray_stays_out_of_models_and_pipeline(path):
    assert "ray" not in first_names(path)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] == "models"], ids=lambda p: p.name
)
def test_models_need_little(path):
    foreign = {
        name for name in first_names(path) if name not in sys.stdlib_module_names
    } - MODELS_MAY
    # Imported when a network of that library is loaded; the library is an option.
    allowed = (
        {"matplotlib"}
        if "train" in path.parts
        else {"spandrel", "torchvision"}
        if path.name == "community.py"
        else set()
    )
    assert foreign <= allowed, f"{path.name} imports {foreign - allowed}"


def forbidden(imported: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the pairs (package of pipeline, package that it imports) that do not go down."""
    return {(own, other) for own, other in imported if own != other and FLOOR[other] >= FLOOR[own]}


def packages_imported() -> set[tuple[str, str]]:
    """(package of pipeline, package of pipeline that one of its modules imports)."""
    pairs = set()
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        own = path.relative_to(ROOT / "pipeline").with_suffix("").parts[0]
        for name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["tierscale", "pipeline"] and own != "__init__":
                pairs.add((own, parts[2]))
    return pairs


def test_packages_of_pipeline_import_downwards():
    assert forbidden(packages_imported()) - KNOWN == set()


def test_what_still_breaks_the_order_is_listed_only_as_long_as_it_does():
    assert KNOWN - forbidden(packages_imported()) == set()


def test_every_package_of_pipeline_has_its_place():
    present = {path.stem for path in (ROOT / "pipeline").iterdir() if path.suffix in ("", ".py")}
    assert present - {"__init__", "__pycache__"} <= set(FLOOR)


@pytest.mark.parametrize(
    "own, other, fine",
    [
        ("formats", "storage", True),
        ("formats", "formats", True),
        ("storage", "formats", False),
        ("formats", "inference", False),
        ("output", "run", False),
    ],
)
def test_the_order_tells_up_from_down(own, other, fine):
    assert (forbidden([(own, other)]) == set()) == fine
