"""Checkpoints: safetensors files whose own metadata say which network the weights belong to.

The metadata hold a `ModelSpec` as JSON under the key "blueprint".
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

FORMAT = "tierscale-1"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is built before weights are put in.

    network: key in registry.UPSCALERS.
    scale: output pixels for each input pixel; 0: any.
    arguments: of the network's constructor, but for the scale.
    mean: of red, green and blue, 0..1; subtracted from the input.
    residual: kernel whose enlargement the network's output is added to; None: the mean is added.
    """

    network: str
    scale: int
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    residual: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A specification and its weights, float32, by name."""

    spec: ModelSpec
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights as it was when it was read.

    Digest and tensors are of one reading: a file that is replaced meanwhile never lends its digest
    to other weights. content: its bytes. digest: their SHA-256, hex.
    """

    path: Path
    content: bytes = field(repr=False)
    digest: str

    @staticmethod
    def read(path: Path) -> "WeightsFile":
        """Read a file. ValueError: there is none."""
        if not path.is_file():
            raise ValueError(
                f"{path} is not a file; give the path of a checkpoint that tierscale train wrote"
            )
        content = path.read_bytes()
        return WeightsFile(path, content, hashlib.sha256(content).hexdigest())

    def metadata(self) -> dict[str, str] | None:
        """The text metadata of a safetensors file; None: it does not begin as such a file."""
        length = int.from_bytes(self.content[:8], "little")
        try:
            return dict(json.loads(self.content[8 : 8 + length]).get("__metadata__") or {})
        except (AttributeError, TypeError, ValueError):
            return None


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what it held before stays where the disk is full."""
    partial = path.with_suffix(path.suffix + ".part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            # Renamed before it is on the disk, a file may be empty after the power fails.
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # The name too: without it the file may be gone.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot do it for folders
            os.fsync(folder)
    finally:
        os.close(folder)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], half: bool = False
) -> None:
    """Store tensors by name with text metadata; `half` stores floats in 16 bits."""
    stored = {
        name: t.detach().cpu().to(torch.float16 if half and t.is_floating_point() else t.dtype)
        for name, t in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path,
        save({name: t.contiguous() for name, t in stored.items()}, {"format": FORMAT, **metadata}),
    )


def read_tensors(file: WeightsFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, halves widened to float32, and the text metadata of a file.

    ValueError: it is damaged, or it is none of ours.
    """
    path, metadata = file.path, file.metadata() or {}
    try:
        tensors = load(file.content)
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); it is damaged or of another format"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}; only files written by"
            " tierscale train say what to build"
        )
    return {
        name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()
    }, metadata


def write_checkpoint(path: Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Store specification and weights in one file; `half` stores floats in 16 bits."""
    write_tensors(
        path,
        checkpoint.tensors,
        {"blueprint": json.dumps(asdict(checkpoint.spec), sort_keys=True)},
        half,
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """The specification and weights of a file.

    ValueError, naming the file, when either is missing or damaged.
    """
    return parse_checkpoint(WeightsFile.read(path))


def parse_checkpoint(file: WeightsFile) -> Checkpoint:
    """As read_checkpoint(), of a file that was read."""
    path, (tensors, metadata) = file.path, read_tensors(file)
    try:
        fields = json.loads(metadata["blueprint"])
        red, green, blue = fields.pop("mean")
        return Checkpoint(ModelSpec(**fields, mean=(red, green, blue)), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no usable model specification in its metadata ({error}); write it with"
            " tierscale train"
        ) from error


def fill(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put weights into a network.

    origin: names the weights in errors. ValueError: the first key that is missing, unknown or of
    another shape.
    """
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise ValueError(
                f"{origin} lacks {name!r} of shape {tuple(tensor.shape)}; it belongs to another"
                " network or another version"
            )
        if tensors[name].shape != tensor.shape:
            raise ValueError(
                f"{origin} holds {name!r} of shape {tuple(tensors[name].shape)} where the network"
                f" has {tuple(tensor.shape)}; its specification and its weights do not belong"
                " together"
            )
    for name in tensors:
        if name not in wanted:
            raise ValueError(
                f"{origin} holds {name!r} of shape {tuple(tensors[name].shape)}, which the network"
                " does not have"
            )
    network.load_state_dict(dict(tensors))
