"""The figures that benchmarks measured, in results.json, each with the command that measures it."""

import json
import platform
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "results.json"


def record(name: str, command: str, figures: dict[str, Any]) -> None:
    """Put the figures of one benchmark in the place of its earlier ones, and print them."""
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    known[name] = {"command": command, "machine": machine(), **figures}
    PATH.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(json.dumps(known[name], indent=1))


def machine() -> str:
    """What it was measured on, in a few words."""
    import psutil

    return (
        f"{psutil.cpu_count(logical=False)} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB,"
        f" {platform.system()}, no GPU"
    )
