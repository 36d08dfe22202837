"""Many outputs against their receipts: those of a folder, or of a ledger."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tierscale.pipeline.dataset.night.reading import is_ledger, outputs_in
from tierscale.pipeline.dataset.scan import missing_outputs
from tierscale.pipeline.errors import Damaged, Held, Refused, Unreachable
from tierscale.pipeline.formats.registry import is_output
from tierscale.pipeline.output.ownership import is_ours
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.verify import Look, Verification, verify_output
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place
from tierscale.pipeline.storage.sidecar import PLAN_NAME, SIDECAR_SUFFIX

# A pool of workers for a kind of device.
PoolFor = Callable[[str], Pool]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is to be verified. problems: sentences on outputs that are missing."""

    paths: tuple[str, ...]
    problems: tuple[str, ...] = ()


def outputs_at(target: str) -> Outputs:
    """The output at a path or URI, the outputs below a folder, or those that a ledger knows.

    Refused: there are none. Damaged: a ledger's outputs are all missing, so that their disk is.
    """
    if is_output(target) or target.rstrip("/").endswith(".zarr"):
        return Outputs((target,))
    if "://" not in target and os.path.isfile(target):
        return _outputs_of_ledger(target)
    if not (where := place(target)).is_dir():
        raise Refused(f"there is no output, folder or ledger {target}; check the path")
    found = tuple(_outputs_below(where))
    if not found:
        raise Refused(f"there are no outputs of tierscale below {target}; check the path")
    return Outputs(found)


def _outputs_of_ledger(path: str) -> Outputs:
    """What a ledger says is done."""
    if not is_ledger(path):
        raise Refused(f"{path} is neither an output of tierscale nor a ledger; check the path")
    outputs = outputs_in(path)
    problems: list[str] = []
    missing = set(missing_outputs(outputs, problems.append))
    if len(missing) == len(outputs) > 1:
        raise Damaged(
            f"none of the {len(outputs)} outputs of {path} is there, such as {outputs[0]}; check"
            " whether their disk is mounted"
        )
    problems.extend(
        f"{output} or the folder beside it is missing; run the nightly command to make it again"
        for output in sorted(missing)
    )
    return Outputs(tuple(one for one in outputs if one not in missing), tuple(problems))


def _outputs_below(folder: Place) -> Iterator[str]:
    """All outputs below a folder, by name; also those whose folder beside them is missing."""
    entries: list[Place] = [*folder.iterdir()]
    names = {entry.name for entry in entries}
    for entry in sorted(entries, key=lambda entry: entry.name):
        output = entry.name.removesuffix(SIDECAR_SUFFIX)
        if entry.name.endswith(SIDECAR_SUFFIX):
            if output not in names and (entry / PLAN_NAME).exists():
                yield str(folder / output)
        elif entry.name.lower().endswith(".zarr"):
            if f"{entry.name}{SIDECAR_SUFFIX}" in names or is_ours(str(entry)):
                yield str(entry)
        elif isinstance(entry, ObjectPath) or (entry.is_dir() and not entry.is_symlink()):
            yield from _outputs_below(entry)


def verify_all(outputs: Outputs, look: Look, pool_for: PoolFor) -> Verification:
    """What is found in all of some outputs; what is wrong with one never hides another.

    Unreachable: a store does not answer. Held: another run writes an output that is to be healed.
    """
    found = Verification(0, outputs.problems)
    for output in outputs.paths:
        try:
            # Healing takes the kind of device that shards were planned for; comparing takes none.
            device = Folder(output).plan().device if look.heal else "cpu"
            found += verify_output(output, pool_for(device), look)
        except (Held, Unreachable):
            raise
        except (Refused, Damaged) as error:
            if len(outputs.paths) == 1:
                raise
            found += Verification(0, (str(error),))
    return found
