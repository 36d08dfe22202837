"""Opening other people's checkpoint files without running code that they hold."""

import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from tierscale.models.contract.checkpoints import WeightsFile

# Where upstream codes keep the weights in what they save, in the order in which they are tried.
PLACES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "sd")


def read_upstream(path: Path) -> Any:
    """What a .pth, .pt or .safetensors file holds, read in a way that runs no code of it.

    ValueError: what cannot be read, and why.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of an upstream checkpoint")
    return parse_upstream(WeightsFile.read(path))


def parse_upstream(file: WeightsFile) -> Any:
    """As read_upstream(), of a file that was read."""
    path = file.path
    try:
        if path.suffix == ".safetensors":
            return load(file.content)
        with warnings.catch_warnings():
            # Of the age of the pickle, on stderr, beside our one sentence.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds a {named.group(1)}" if named else "it is damaged, or not a torch file"
        raise ValueError(
            f"{path} cannot be read as plain tensors: {reason}, and more is not read, because"
            " unpickling runs code"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{path} cannot be read; it is damaged, or not a torch checkpoint"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too soon")
        raise ValueError(
            f"{path} cannot be read ({reason}); it is damaged, or not a torch checkpoint"
        ) from error


def find_weights(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in what an upstream code saved, and the constructor arguments beside it.

    DataParallel's prefix is taken off; the arguments are empty where there are none. ValueError:
    there are no tensors by name.
    """
    config: dict[str, Any] = {}
    while isinstance(content, Mapping) and not all(
        isinstance(entry, Tensor) for entry in content.values()
    ):
        if isinstance(content.get("args"), Mapping):
            config = {"name": content.get("name"), **content["args"]}
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
            f"{path} holds a tensor under {nameless[0]!r}, which is not the name of a weight"
        )
    parallel = all(name.startswith("module.") for name in content)
    return {
        name.removeprefix("module.") if parallel else name: tensor.float()
        for name, tensor in content.items()
    }, config
