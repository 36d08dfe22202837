"""How many workers a pool has and what each takes: arithmetic on resources, without Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.run.workers.pool import cores

LAYOUTS = ("auto", "split", "together")
# Resources of ours by which nodes say how many workers of each kind they take.
KINDS = ("light", "full")
# Ray counts shares of a resource in ten-thousandths.
RAY_SHARES = 10_000


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """How many actors a group has and what each takes.

    num_cpus, num_gpus: Ray's logical resources of one actor. device: where its networks run.
    mark: custom resource of which an actor takes one, such as "full", so that it comes up on nodes
    that offer it; "" for none. grows: whether more actors start when the cluster gets more of the
    mark.
    """

    size: int
    device: str = "cpu"
    num_cpus: float = 1
    num_gpus: float = 0
    mark: str = ""
    grows: bool = False


# The light group, and the full one, or None where the first does all the work.
PoolSpecs = tuple[PoolSpec, PoolSpec | None]
Resources = Mapping[str, float]


def check_layout(layout: str) -> None:
    """Refuse a layout that does not exist."""
    if layout not in LAYOUTS:
        raise Refused(f"there is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")


def specs_by_mark(
    nodes: Sequence[Resources], layout: str, device: str, workers: int | None
) -> PoolSpecs | None:
    """Groups as nodes offer them: their resources "light" and "full" count the workers they take.

    nodes: resources of each node. workers: the most that all groups have together; None: all that
    are offered. The result is None where no node offers a kind, or the layout is "together"; where
    only one kind is offered, its group does all the work. Refused: the nodes would not all have the
    same kind of device.
    """
    homes = {
        kind: offering
        for kind in KINDS
        if (offering := [node for node in nodes if node.get(kind, 0) >= 1])
    }
    if layout == "together" or not homes:
        return None
    device = _device_of(homes, device)
    sizes = {kind: sum(int(node[kind]) for node in homes[kind]) for kind in homes}
    if workers is not None:
        sizes = _limited(sizes, workers)
    first, *other = (
        PoolSpec(
            sizes[kind],
            device,
            num_cpus=0,
            num_gpus=_gpus_each(homes[kind]) if device == "cuda" else 0,
            mark=kind,
            grows=workers is None,
        )
        for kind in homes
    )
    return first, other[0] if other else None


def _device_of(homes: Mapping[str, Sequence[Resources]], device: str) -> str:
    """The kind of device that all groups use. Refused: some nodes have a GPU and others none."""
    with_gpu = {bool(node.get("GPU", 0)) for nodes in homes.values() for node in nodes}
    if device != "cpu" and (
        with_gpu == {True, False} or (device == "cuda" and with_gpu == {False})
    ):
        raise Refused(
            "some of the nodes that take light and full workers have no GPU; use --device cpu, or"
            " give a GPU to each"
        )
    return "cuda" if device != "cpu" and with_gpu == {True} else "cpu"


def _limited(sizes: Mapping[str, int], workers: int) -> dict[str, int]:
    """Sizes of the groups when there are at most so many workers: half are full, the rest light."""
    if "full" not in sizes or len(sizes) == 1:
        return {kind: min(size, workers) for kind, size in sizes.items()}
    full = min(sizes["full"], max(1, workers // 2))
    return {"light": min(sizes["light"], max(1, workers - full)), "full": full}


def _gpus_each(nodes: Sequence[Resources]) -> float:
    """GPUs of one worker, 0 to 1: the smallest share on any node, whose workers share its GPUs."""
    share = min(
        1.0,
        *(node.get("GPU", 0) / (node.get("light", 0) + node.get("full", 0)) for node in nodes),
    )
    # Rounded down: three thirds must not add up to more than one.
    return int(share * RAY_SHARES) / RAY_SHARES


def specs_by_resources(
    resources: Resources, layout: str, device: str, workers: int | None
) -> PoolSpecs:
    """Groups for the total resources of a cluster whose nodes offer no kinds of workers.

    All workers that enlarge have one kind of device, so that a plan gives the same bytes in every
    layout. Refused: device is "cuda" and the cluster has none.
    """
    gpus = int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise Refused("the Ray cluster has no GPU; use --device cpu, or add one")
    processors = workers or _processors(resources)
    if device != "cpu" and gpus:
        if layout == "together":
            return PoolSpec(gpus, "cuda", num_gpus=1), None
        # Two light workers to each full one keep a GPU busy while they read, stitch and write;
        # halves and quarters fit in any order.
        light = max(1, min(processors - gpus, 2 * gpus))
        return PoolSpec(light, "cuda", num_gpus=0.25), PoolSpec(gpus, "cuda", num_gpus=0.5)
    if layout == "split":
        full = max(1, processors // 2)
        return PoolSpec(max(1, processors - full)), PoolSpec(full)
    return PoolSpec(processors), None


def _processors(resources: Resources) -> int:
    """Processors that workers can keep busy, at least 1."""
    nodes = sum(
        1 for name in resources if name.startswith("node:") and name != "node:__internal_head__"
    )
    logical = max(1, int(resources.get("CPU", 1)))
    # On one machine Ray counts more logical processors than there are, so that actors fit; on a
    # cluster one of each node is left to Ray's own processes.
    return min(cores(), logical) if nodes <= 1 else max(1, logical - nodes)
