"""Upstream checkpoints become ours: which converter reads which code's names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tierscale.models.contract.checkpoints import Checkpoint
from tierscale.models.convert.adaptive import adadsr, anysr, ape, classsr, pcsr
from tierscale.models.convert.backbones import carn, edsr, fsrcnn, rcan, rdn, srresnet, vdsr
from tierscale.models.convert.files import find_weights, read_upstream
from tierscale.models.convert.mapping import Mean

Converter = Callable[[Mapping[str, Tensor], Mapping[str, Any], Mean], Checkpoint]

# What --method names -> what turns tensors under upstream names, constructor arguments and the mean
# into our checkpoint.
UPSTREAM: dict[str, Converter] = {
    "carn": carn.from_upstream,
    "fsrcnn": fsrcnn.from_upstream,
    "srresnet": srresnet.from_upstream,
    "edsr": edsr.from_upstream,
    "rcan": rcan.from_upstream,
    "vdsr": vdsr.from_upstream,
    "rdn": rdn.from_upstream,
    "pcsr": pcsr.from_upstream,
    "ape": ape.from_upstream,
    "adadsr": adadsr.from_upstream,
    "anysr": anysr.from_upstream,
    "classsr": classsr.from_upstream,
}

# Entries of upstream configurations that count something, and those that values are multiplied by.
COUNTS = frozenset(
    {"n_resblocks", "n_resgroups", "n_groups", "n_feats", "n_colors", "reduction"}
    | {"exit_interval", "adapter_layers", "nf", "nb", "d", "s", "m", "group", "groups"}
    | {"width", "blocks"}
)
FACTORS = frozenset({"rgb_range", "res_scale"})
# Of DIV2K: PCSR takes it from the input of CARN, and nothing from that of FSRCNN.
DIV2K: Mean = (0.4488, 0.4371, 0.4040)


def convert(path: Path, method: str, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint in a file of the upstream code of `method`, a key of UPSTREAM.

    config: constructor arguments that the file does not hold, and "mean", the mean of red, green
    and blue, where the upstream one is not meant; they win over what the file says. ValueError:
    what cannot be read or does not fit, naming key and shapes.
    """
    if method not in UPSTREAM:
        raise ValueError(f"there is no method {method!r}; known are {', '.join(UPSTREAM)}")
    tensors, stored = find_weights(read_upstream(path), path)
    full = {**stored, **(config or {})}
    mean = full.pop("mean", None) or _default_mean(method, full)
    check_numbers(full)
    if (
        not isinstance(mean, Sequence)
        or len(mean) != 3
        or not all(isinstance(value, int | float) for value in mean)
    ):
        raise ValueError(
            f"the mean {mean} is not that of red, green and blue; give three numbers, such as"
            f" {list(DIV2K)}"
        )
    try:
        return UPSTREAM[method](tensors, full, (float(mean[0]), float(mean[1]), float(mean[2])))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the configuration {full} is not one of {method} ({error!r}); give its constructor"
            " arguments"
        ) from error


def check_numbers(config: Mapping[str, Any]) -> None:
    """ValueError naming the first entry, at any depth, that should be a positive number."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_numbers(value)
        whole = isinstance(value, int) or (isinstance(value, str) and value.isdigit())
        if name in COUNTS and (isinstance(value, bool) or not whole or int(value) < 1):
            raise ValueError(
                f"the configuration's {name} is {value!r}, which is not a whole number above 0"
            )
        if name in FACTORS and (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value < float("inf")
        ):
            raise ValueError(
                f"the configuration's {name} is {value!r}, which is not a number above 0"
            )


def _default_mean(method: str, config: Mapping[str, Any]) -> Mean:
    """The mean that the upstream network is used with where it is not among its own weights."""
    encoder = config.get("encoder_spec")
    network = encoder.get("name") if method == "pcsr" and isinstance(encoder, Mapping) else method
    return DIV2K if network == "carn" else (0.0, 0.0, 0.0)
