"""The public function for arrays: what is asked for, and the kind of array that comes back."""

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.array import is_dask
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Policy, in_words, policy_from
from tierscale.pipeline.run.array.lazy import LazyResult
from tierscale.pipeline.run.array.memory import Held, bytes_in_memory
from tierscale.pipeline.run.array.target import InMemory, open_target
from tierscale.pipeline.run.array.work import ArrayJob, enlarge_to, pool_of

if TYPE_CHECKING:
    import dask.array as da
    import zarr

AXES = ("cyx", "yxc", "yx")


def upscale_array(
    array: Any,
    scale: float | str | Fraction = 4,
    *,
    tiers: str | Sequence[str] | None = None,
    family: str = "auto",
    denoise: float | None = None,
    precision: str = "auto",
    policy: str | Policy | None = None,
    budget: float | None = None,
    max_loss: float | None = None,
    deadline: float | None = None,
    threshold: float | None = None,
    tile: int = 128,
    blend: int | None = None,
    axes: str = "cyx",
    out: "zarr.Array | str | os.PathLike[str] | None" = None,
    max_memory: int | None = None,
) -> "np.ndarray | da.Array | zarr.Array":
    """Enlarge a numpy, dask or zarr array; the result has the same axes and type.

    A numpy or zarr array gives a numpy array. A dask array gives a dask array at once: it is
    planned when the first block is computed. out: a zarr array of the result's shape and type, or a
    path where one is made; all is written there in bounded memory, and that array is returned.

    array: uint8, uint16 or float32 with the given axes, "cyx", "yxc" or "yx"; two dimensions are
    always "yx". Three channels are taken as RGB and four as RGBA. scale: a number or a fraction
    such as "5/2". tiers: names from light to full, or one text with commas. family: of the default
    tiers, "clean", "photo" or "auto". denoise: of photo networks, 0 to 1. precision: "fp32",
    "bf16", or "auto", as the processor has it. policy: a policy, or its name as in the command;
    budget (share of the full cost), max_loss (dB), deadline (seconds) or threshold (squared error)
    alone imply their own. tile, blend: input pixels. max_memory: bytes that it may take with what
    it keeps; None: 90 % of this machine's.

    Raises Refused (a ValueError) when something cannot work, such as a result that does not fit in
    memory, and Damaged when it cannot be written any more.
    """
    array = array if hasattr(array, "shape") else np.asarray(array)
    numbers = {"budget": budget, "max_loss": max_loss, "deadline": deadline, "threshold": threshold}
    networks = {"scale": scale, "tiers": tiers, "family": family, "denoise": denoise}
    how = {"policy": _policy_of(policy, numbers), "tile": tile, "blend": blend}
    options = _written(precision=precision, **networks, **how)
    job = ArrayJob.of(array, _axes_of(array, axes), options, max_memory)
    return _result(job, out, array)


def _result(
    job: ArrayJob, out: "zarr.Array | str | os.PathLike[str] | None", array: Any
) -> "np.ndarray | da.Array | zarr.Array":
    """What is made of an array, where it is wanted."""
    if out is not None:
        return _stored(job, out, array)
    if is_dask(array):
        return LazyResult(job).to_dask()
    return _in_memory(job, array)


def _in_memory(job: ArrayJob, array: Any) -> np.ndarray:
    """The result of an array as a numpy array."""
    with pool_of(job, Held(array=bytes_in_memory(array), result=job.result_bytes)) as pool:
        result = InMemory(job.draft, job.axes)
        enlarge_to(job, pool, result)
    return result.array


def _stored(job: ArrayJob, out: "zarr.Array | str | os.PathLike[str]", array: Any) -> "zarr.Array":
    """The result of an array in a zarr array."""
    if out is array:
        raise Refused("out is the array that is enlarged; give another one, or a path")
    target = open_target(out, job.draft, job.axes)
    try:
        with pool_of(job, Held(array=bytes_in_memory(array), beside=target.bytes_beside)) as pool:
            enlarge_to(job, pool, target)
        return target.finish()
    except BaseException:
        target.abandon()
        raise


def _written(**values: Any) -> Options:
    """Options with what is not None; the others have their defaults."""
    return Options(**{name: value for name, value in values.items() if value is not None})


def _axes_of(array: Any, axes: str) -> str:
    """The axes of an array. Refused: there are no such axes."""
    if array.ndim == 2:
        return "yx"
    if axes not in AXES:
        raise Refused(f"axes {axes!r} are not known; choose one of {', '.join(AXES)}")
    return axes


def _policy_of(policy: str | Policy | None, numbers: Mapping[str, float | None]) -> Policy | None:
    """The policy of upscale_array(); None: the default. Refused: a number would be ignored."""
    if policy is None and all(value is None for value in numbers.values()):
        return None
    if policy is None or isinstance(policy, str):
        return policy_from(policy, numbers)
    ignored = [name for name, value in numbers.items() if value is not None]
    if ignored:
        raise Refused(
            f"{ignored[0]} would be ignored beside the policy"
            f" {in_words(policy)}; leave one of the two out"
        )
    return policy
