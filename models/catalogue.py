"""What can be a tier, as it was counted and measured: read without building any network.

`python -m tierscale.models.catalogue` writes it anew, after weights or cards of the zoo changed.
"""

import json
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).parent / "zoo" / "catalogue.json"


def listing() -> list[dict[str, Any]]:
    """A row of registry.facts() for each name."""
    rows: list[dict[str, Any]] = json.loads(CATALOGUE.read_text())
    return rows


def counted() -> list[dict[str, Any]]:
    """The same, with every network built and counted."""
    # These import torch, which takes longer than all that listing() does.
    from tierscale.models.registry import facts
    from tierscale.models.weights import names

    rows: list[dict[str, Any]] = json.loads(json.dumps([facts(name) for name in names()]))
    return rows


if __name__ == "__main__":
    CATALOGUE.write_text(json.dumps(counted(), indent=1) + "\n")
    print(f"{CATALOGUE} is written")
