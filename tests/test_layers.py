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
# Packages (and modules) of a layer, low to high; those of one row do not import each other.
ROWS = {
    "models": (
        ("contract",),
        ("runtime", "weights", "turned"),
        ("backbones", "difference", "fidelity", "kind", "mixed"),
        ("adaptive",),
        ("convert",),
        ("registry",),
        ("catalogue",),
        ("train",),
    ),
    "pipeline": (
        ("closing", "errors", "geometry", "version", "wording"),
        ("plan", "storage"),
        ("formats", "routing", "inference"),
        ("output",),
        ("run", "view"),
        ("dataset",),
    ),
    "jobs": (
        ("cli",),
        ("manifest_run", "night_run"),
        ("demo", "evaluate", "manifest", "nightly", "train", "upscale_dataset", "verify", "view"),
    ),
}
FLOORS = {
    layer: {package: floor for floor, row in enumerate(rows) for package in row}
    for layer, rows in ROWS.items()
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
        else {"spandrel", "spandrel_extra_arches", "torchvision"}
        if "community" in path.parts
        else set()
    )
    assert foreign <= allowed, f"{path.name} imports {foreign - allowed}"


def forbidden(layer: str, imported: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the pairs (package of a layer, package that it imports) that do not go down."""
    floor = FLOORS[layer]
    return {(own, other) for own, other in imported if own != other and floor[other] >= floor[own]}


def packages_imported(layer: str) -> set[tuple[str, str]]:
    """(package of a layer, package of it that one of its modules imports)."""
    pairs = set()
    for path in sorted((ROOT / layer).rglob("*.py")):
        own = path.relative_to(ROOT / layer).with_suffix("").parts[0]
        for name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["tierscale", layer] and own != "__init__":
                pairs.add((own, parts[2]))
    return pairs


@pytest.mark.parametrize("layer", ROWS)
def test_packages_import_downwards(layer):
    imported = packages_imported(layer)
    assert imported and forbidden(layer, imported) == set()


@pytest.mark.parametrize("layer", ROWS)
def test_every_package_has_its_place(layer):
    folder = ROOT / layer
    present = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert present - {"__init__", "__pycache__", "zoo"} <= set(FLOORS[layer])


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
    assert (forbidden("pipeline", [(own, other)]) == set()) == fine
