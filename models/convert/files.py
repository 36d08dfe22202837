"""Opening other people's checkpoint files without running code that they hold."""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from tierscale.models.contract.checkpoints import WeightsFile

# Where upstream codes keep the weights in what they save, in the order in which they are tried.
PLACES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "sd")
# First bytes of files of weights that cannot be read -> what they are, and what to do.
STRANGERS = {
    rb"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with git lfs"
    " pull",
    rb"GGUF": "a GGUF file of a language model; give a .pth or .safetensors file",
    rb"7767517\s": "an ncnn network; give the .pth or .safetensors file that it was made from",
    rb"\x08[\x01-\x14]\x12": "an ONNX network; give the .pth or .safetensors file that it was made"
    " from",
    rb"\s*(<!DOCTYPE|<html)": "a web page, not the file itself; download the file again",
    rb"$": "empty; copy or download it again",
}
# First byte of what Python pickles.
PICKLE = b"\x80"


def read_upstream(path: Path) -> Any:
    """What a .pth, .pt or .safetensors file holds, read in a way that runs no code of it.

    ValueError: what cannot be read, and why.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of an upstream checkpoint")
    return parse_upstream(WeightsFile.read(path))


def parse_upstream(file: WeightsFile) -> Any:
    """As read_upstream(), of a file that was read. The content says what it is, not the name."""
    path = file.path
    if stranger := _stranger(file.content):
        raise ValueError(f"{path} is {stranger}")
    try:
        if file.metadata() is not None:
            return load(file.content)
        return _unpickled(file.content)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None and not file.content.startswith(PICKLE):
            raise _unreadable(path) from error
        holds = f"a {named.group(1)}" if named else "objects of its own"
        raise ValueError(
            f"{path} cannot be read as plain tensors: it holds {holds}, and more is not read,"
            " because unpickling runs code; save its state_dict alone, or as .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ValueError:
    return ValueError(
        f"{path} cannot be read; it is cut off or damaged, or no file of weights: copy or download"
        " it again"
    )


def _stranger(content: bytes) -> str | None:
    """What a file is that cannot be read as weights; None: it may be."""
    for first, what in STRANGERS.items():
        if re.match(first, content[:64]):
            return what
    if content.startswith(b"PK"):
        try:
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        except zipfile.BadZipFile:
            return "cut off or damaged; copy or download it again"
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "a TorchScript program, which is code and is not run; give the .pth or .safetensors"
                " file that it was made from"
            )
    return None


class _Passed:
    """Stands for what is not needed of a pickle, such as the best score of a training."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _unpickled(content: bytes) -> Any:
    """What torch.save() wrote, tensors and plain values alone."""
    scores: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Passed, f"{module}.{name}")
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("dtype", "scalar")
    ]
    with warnings.catch_warnings(), torch.serialization.safe_globals(scores):
        # Of the age of the pickle, on stderr, beside our one sentence.
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


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
