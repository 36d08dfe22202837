"""Our networks against recorded outputs of the upstream ones.

`python -m tests.check_reference DIR`.

Prints one line for each output tensor of each file, `FILE KEY max_error tolerance PASS|FAIL`, and
ends with 1 when one failed, when a file holds an output that nothing checks, or when a file is of
no known method; with 0 when all agree.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests import (
    reference_adadsr,
    reference_anysr,
    reference_ape,
    reference_classsr,
    reference_dense,
    reference_pcsr,
)
from tests.reference_file import Line, Reference, read_reference

Check = Callable[[Reference], list[Line]]

# Method, or for PCSR's dense baselines the network's name, as the metadata say -> what checks such
# a file.
CHECKS: dict[str, Check] = {
    "carn": reference_dense.check,
    "fsrcnn": reference_dense.check,
    "srresnet": reference_dense.check,
    "PCSR": reference_pcsr.check,
    "APE": reference_ape.check,
    "AdaDSR": reference_adadsr.check,
    "AnySR": reference_anysr.check,
    "ClassSR": reference_classsr.check,
}


def family(reference: Reference) -> str:
    """Key in CHECKS; ValueError naming the method and the known ones."""
    name = str(reference.config.get("name", reference.method))
    kind = name if reference.method == "PCSR" and name in CHECKS else reference.method
    if kind not in CHECKS:
        raise ValueError(f"{reference.path} is of method {kind!r}; known are {', '.join(CHECKS)}")
    return kind


def check_file(path: Path) -> bool:
    """Print the lines of one file; whether all passed and none is missing."""
    try:
        reference = read_reference(path)
        lines = CHECKS[family(reference)](reference)
    except KeyError as error:
        print(
            f"{path.name}: it lacks {error}, which files of the reference layout have",
            file=sys.stderr,
        )
        return False
    except Exception as error:  # whatever one file does, the others are still to be checked
        print(f"{path.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    for line in lines:
        print(
            f"{path.name} {line.key} {line.error:.3g} {line.tolerance:g}"
            f" {'PASS' if line.passed else 'FAIL'}"
        )
    unchecked = {f"out.{key}" for key in reference.outputs} - {line.key for line in lines}
    for key in sorted(unchecked):
        print(f"{path.name} {key} nan 0 FAIL")
        print(f"{path.name}: nothing checks the output {key}", file=sys.stderr)
    return bool(lines) and not unchecked and all(line.passed for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Check every .safetensors file of a folder."""
    if len(arguments) != 1:
        print("give one folder: python -m tests.check_reference DIR", file=sys.stderr)
        return 1
    paths = sorted(Path(arguments[0]).glob("*.safetensors"))
    if not paths:
        print(
            f"{arguments[0]} holds no .safetensors file; give the folder of the reference data",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(min(2, torch.get_num_threads()))
    passed = [check_file(path) for path in paths]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
