"""What is imported is declared, with a lowest version, and no private part of a library is used."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests import lowest
from tests.conftest import ROOT
from tests.test_layers import FILES, first_names, imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Imported where they are used only, by what says how to install them.
OPTIONAL = {"spandrel": "community", "torchvision": "community", "skimage": "demo"}
# Used where a user has installed it beside spandrel; its licences forbid an extra that installs it.
BESIDE = {"spandrel_extra_arches"}
# What exists for type checkers only.
STUBS = {"_typeshed"}
# Parts of libraries that change without notice; what they hold is to be had in public.
PRIVATE = re.compile(r"(^|\.)_|^zarr\.core\b")
# What a library's own manual tells its users to import from there.
DOCUMENTED = {"torch.utils._python_dispatch.TorchDispatchMode"}


def normal(name: str) -> str:
    """The name of a distribution as all ways to write it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", one)[0]) for one in requirements}  # type: ignore[index]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_declared(path):
    providers = packages_distributions()
    declared = required(PROJECT["dependencies"])
    foreign = (
        first_names(path) - set(sys.stdlib_module_names) - {"tierscale", *OPTIONAL, *BESIDE, *STUBS}
    )
    undeclared = {
        name for name in foreign if not declared & {normal(one) for one in providers[name]}
    }
    assert not undeclared, f"pyproject.toml does not ask for {undeclared}"


def test_what_is_optional_is_in_an_extra():
    extras = PROJECT["optional-dependencies"]
    for module, extra in OPTIONAL.items():
        assert extras[extra], f"{module} is in no extra"
    assert "scikit-image" in required(extras["demo"])
    assert "spandrel" in required(extras["community"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_private_of_other_projects_is_imported(path):
    private = {
        name
        for name in set(imports(path)) - DOCUMENTED
        if name.split(".")[0] not in {"tierscale", "__future__", *STUBS} and PRIVATE.search(name)
    }
    assert not private, f"{path.name} imports {private}"


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("zarr.core.sync.sync", True),
        ("ray._private.ray_constants", True),
        ("numpy._core", True),
        ("zarr.codecs.ZstdCodec", False),
        ("zarr.corebuffers", False),
    ],
)
def test_private_parts_are_told_from_others(name, private):
    assert bool(PRIVATE.search(name)) == private


def test_every_requirement_has_a_lowest_version_and_that_is_what_is_tried():
    assert lowest.lowest("ray[default]>=2.60,<3") == "ray==2.60"
    with pytest.raises(ValueError, match="'click' has no lower bound"):
        lowest.lowest("click")
    lines = lowest.constraints()
    names = {normal(line.split("==")[0]) for line in lines}
    extras = PROJECT["optional-dependencies"]
    assert required(PROJECT["dependencies"] + extras["test"]) <= names
    assert "numpy==2.0" in lines
