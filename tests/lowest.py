"""Constraints with the lowest version of everything that pyproject.toml asks for.

`python -m tests.lowest` prints them for pip; `make test-lowest` runs the tests with them.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("demo", "test", "community")


def lowest(requirement: str) -> str:
    """A requirement such as "ray[default]>=2.60,<3" as "ray==2.60"."""
    match = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?>=([\w.]+)(,<[\w.]+)?", requirement)
    if match is None:
        raise ValueError(f"{requirement!r} has no lower bound; write it as NAME>=VERSION")
    return f"{match[1]}=={match[3]}"


def constraints() -> list[str]:
    """One line for each requirement of the package and of the extras that tests use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
    return sorted({lowest(requirement) for requirement in wanted})


if __name__ == "__main__":
    print("\n".join(constraints()))
