"""A*0.3+B*0.7: a network whose weights are those of others of one architecture, mixed.

Wang, Yu, Dong, Tang and Loy 2019, Deep Network Interpolation (arXiv 1811.10515), equation 2: where
one network was trained on from another, those between them do something between, at the cost of
one.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tierscale.models.contract.checkpoints import (
    Checkpoint,
    WeightsFile,
    digest_file,
    parse_checkpoint,
)
from tierscale.models.weights import locate, stored

_PART = re.compile(r"(.+?)\*(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """A network of a mix, by its name, and its share, 0..1."""

    name: str
    share: float


def write_mix(parts: Sequence[Part]) -> str:
    """How a mix is written as a tier."""
    return "+".join(f"{part.name}*{part.share:g}" for part in parts)


def parse_mix(name: str) -> tuple[Part, ...]:
    """The parts of a mix; none where `name` is none, as the name of a file with such letters.

    ValueError: the shares do not add up to 1.
    """
    if "*" not in name or Path(name.removeprefix("file:")).is_file():
        return ()
    matches = [_PART.fullmatch(part) for part in name.split("+")]
    parts = tuple(Part(match[1], float(match[2])) for match in matches if match)
    if len(parts) < 2 or len(parts) < len(matches):
        raise ValueError(
            f"{name!r} is not written A*SHARE+B*SHARE; write for example"
            " edsr-x4*0.3+edsr-x4-photo*0.7"
        )
    total = sum(part.share for part in parts)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares of {name} add up to {total:g}; change them to add up to 1")
    return parts


def mixed_digest(parts: Sequence[Part], digests: Sequence[str]) -> str:
    """SHA-256, hex, that a mix is known by: of the digests of its parts, and their shares."""
    text = "+".join(f"{digest}*{part.share:g}" for part, digest in zip(parts, digests, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def mixed_files(parts: Sequence[Part], weights: str | None = None) -> list[Path] | None:
    """The checkpoints of a mix: the newest ones, or those that are known by a digest.

    None: no weights that are here are known by it. ValueError: there is no such network.
    """
    if weights is None:
        return [locate(part.name) for part in parts]
    for files in itertools.product(*(_files(part.name) for part in parts)):
        if mixed_digest(parts, [digest for _, digest in files]) == weights:
            return [path for path, _ in files]
    return None


def _files(name: str) -> list[tuple[Path, str]]:
    """The files that a name ever stood for, or that of file:PATH, with their SHA-256, hex."""
    paths = [locate(name, digest) for digest in stored(name)] or [locate(name)]
    return [(path, digest_file(path)) for path in paths]


def mixed(parts: Sequence[Part], files: Sequence[WeightsFile]) -> Checkpoint:
    """The checkpoint of a mix. ValueError: the networks are of several architectures."""
    checkpoints = [parse_checkpoint(file) for file in files]
    first = checkpoints[0]
    for part, other in zip(parts, checkpoints, strict=True):
        if other.spec != first.spec:
            raise ValueError(
                f"{parts[0].name} and {part.name} are not of one architecture, and cannot be mixed;"
                " name networks of which one was trained from the other"
            )
    tensors = {key: torch.zeros_like(tensor) for key, tensor in first.tensors.items()}
    for part, other in zip(parts, checkpoints, strict=True):
        for key, tensor in tensors.items():
            tensor.add_(other.tensors[key], alpha=part.share)
    return Checkpoint(first.spec, tensors)
