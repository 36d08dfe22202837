"""Published checkpoints become ours: how a file of the official code is opened, and what reads
which network's names.
"""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tierscale.models.adaptive.adadsr import upscaler as adadsr
from tierscale.models.adaptive.anysr import upscaler as anysr
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.classsr import upscaler as classsr
from tierscale.models.adaptive.pcsr import upscaler as pcsr
from tierscale.models.backbones import carn, edsr, fsrcnn, rcan, rdn, srresnet, vdsr
from tierscale.models.contract.checkpoints import Checkpoint

Mean = tuple[float, float, float]
Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any], Mean], Checkpoint]

# What --method names -> what turns tensors under published names, constructor arguments and the
# mean into our checkpoint.
PUBLISHED: dict[str, Reader] = {
    "carn": carn.published,
    "fsrcnn": fsrcnn.published,
    "srresnet": srresnet.published,
    "edsr": edsr.published,
    "rcan": rcan.published,
    "vdsr": vdsr.published,
    "rdn": rdn.published,
    "pcsr": pcsr.published,
    "ape": ape.published,
    "adadsr": adadsr.published,
    "anysr": anysr.published,
    "classsr": classsr.published,
}

# Where the official codes keep the weights in what they save, in the order in which they are looked
# for.
PLACES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "sd")
# Entries of published configurations that count something, and those that values are multiplied
# with.
COUNTS = {
    "n_resblocks",
    "n_resgroups",
    "n_groups",
    "n_feats",
    "n_colors",
    "reduction",
    "exit_interval",
    "adapter_layers",
}
COUNTS |= {"nf", "nb", "d", "s", "m", "group", "groups", "width", "blocks"}
FACTORS = {"rgb_range", "res_scale"}
# Of DIV2K: PCSR takes it from the input of CARN, and nothing from that of FSRCNN.
DIV2K: Mean = (0.4488, 0.4371, 0.4040)


def convert(path: Path, method: str, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint in a file of the official code of `method`, a key of PUBLISHED.

    config: constructor arguments that the file does not hold, and "mean", the mean of red, green
    and blue, where the published one is not meant; they win over what the file says. ValueError:
    what cannot be read or does not fit, naming key and shapes.
    """
    if method not in PUBLISHED:
        raise ValueError(f"there is no method {method!r}; known are {', '.join(PUBLISHED)}")
    tensors, held = weights_in(read_official(path), path)
    given = {**held, **(config or {})}
    mean = given.pop("mean", None) or _mean(method, given)
    check_numbers(given)
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
        return PUBLISHED[method](tensors, given, (float(mean[0]), float(mean[1]), float(mean[2])))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"the configuration {given} is none of {method} ({error!r}); give its constructor"
            " arguments"
        ) from error


def check_numbers(config: Mapping[str, Any]) -> None:
    """ValueError naming the first entry of a configuration, at any depth, that should be a number
    above 0 and is not.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_numbers(value)
        whole = isinstance(value, int) or (isinstance(value, str) and value.isdigit())
        if name in COUNTS and (isinstance(value, bool) or not whole or int(value) < 1):
            raise ValueError(
                f"the configuration's {name} is {value!r}, which is no whole number above 0"
            )
        if name in FACTORS and (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value < float("inf")
        ):
            raise ValueError(f"the configuration's {name} is {value!r}, which is no number above 0")


def read_official(path: Path) -> Any:
    """What a .pth, .pt or .safetensors file holds, read in a way that runs no code of it;
    ValueError saying what stands against it.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no file {path}; give the path of a checkpoint of the official code"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about the age of the pickle, on stderr, beside our one sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds a {named.group(1)}" if named else "it is damaged, or no file of torch"
        raise ValueError(
            f"{path} cannot be read as plain tensors: {reason}, and more is not read, because"
            " unpickling runs code"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{path} cannot be read; it is damaged, or no checkpoint of torch"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too soon")
        raise ValueError(
            f"{path} cannot be read ({reason}); it is damaged, or no checkpoint of torch"
        ) from error


def weights_in(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in what an official code saved, without DataParallel's prefix, and the
    constructor arguments beside it, if any.
    """
    held: dict[str, Any] = {}
    while isinstance(content, Mapping) and not all(
        isinstance(entry, Tensor) for entry in content.values()
    ):
        if isinstance(content.get("args"), Mapping):
            held = {"name": content.get("name"), **content["args"]}
        place = next((place for place in PLACES if isinstance(content.get(place), Mapping)), None)
        if place is None:
            raise ValueError(
                f"{path} holds {', '.join(map(str, content))}, and weights under none of"
                f" {', '.join(PLACES)}"
            )
        content = content[place]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__} and no tensors by name")
    if nameless := [key for key in content if not isinstance(key, str)]:
        raise ValueError(
            f"{path} holds a tensor under {nameless[0]!r}, which is no name of a weight"
        )
    parallel = all(name.startswith("module.") for name in content)
    return {
        name.removeprefix("module.") if parallel else name: tensor.float()
        for name, tensor in content.items()
    }, held


def _mean(method: str, given: Mapping[str, Any]) -> Mean:
    """The mean that the published network is used with where it is not among its own weights."""
    encoder = given.get("encoder_spec")
    network = encoder.get("name") if method == "pcsr" and isinstance(encoder, Mapping) else method
    return DIV2K if network == "carn" else (0.0, 0.0, 0.0)
