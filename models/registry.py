"""Upscalers by name: what the zoo holds, how to load it, and what it costs."""

import copy
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from tierscale.models.adaptive.adadsr import upscaler as adadsr
from tierscale.models.adaptive.anysr import upscaler as anysr
from tierscale.models.adaptive.ape import upscaler as ape
from tierscale.models.adaptive.classsr import upscaler as classsr
from tierscale.models.adaptive.pcsr import upscaler as pcsr
from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.backbones.rdn import Rdn
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    WeightsFile,
    digest_file,
    parse_checkpoint,
)
from tierscale.models.contract.efforts import Efforts, read_efforts
from tierscale.models.contract.upscaler import EffortByScale, OnGrid, Upscaler
from tierscale.models.convert import community
from tierscale.models.mixed import Part, mixed, mixed_digest, mixed_files, parse_mix
from tierscale.models.runtime import plain
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.turned import Turned
from tierscale.models.weights import card, locate, parse_turns

# A network is one file in backbones/ or one folder in adaptive/, and one line here: name in a
# checkpoint's specification -> what builds the upscaler from it.
UPSCALERS: dict[str, Callable[[Checkpoint, str], Upscaler]] = {
    "fsrcnn": partial(plain.build, Fsrcnn),
    "carn": partial(plain.build, Carn),
    "edsr": partial(plain.build, Edsr),
    "srresnet": partial(plain.build, Srresnet),
    "rcan": partial(plain.build, Rcan),
    "vdsr": partial(plain.build, Vdsr),
    "rdn": partial(plain.build, Rdn),
    "pcsr": pcsr.build,
    "anysr": anysr.build,
    "classsr": classsr.build,
    "ape": ape.build,
    "adadsr": adadsr.build,
}

# Named in the digest of bicubic, which has no weights: another kernel, border or phase rule would
# be another algorithm.
BICUBIC = "bicubic: Keys a = -0.5, border repeated, version 1"

# Networks that a process keeps. To build one takes a tenth of a second, which planning many small
# images would spend several times on each.
KEPT = 16

# Scales at which facts() tells what NAME@auto is.
SHOWN_SCALES = tuple(Fraction(scale) for scale in ("3/2", "2", "5/2", "3", "4"))


def load(name: str, device: str = "cpu") -> Upscaler:
    """The upscaler of a zoo name, bicubic, or file:PATH, on a device; with +8, +4 or +2, turned.

    It is shared by all in this process who load the same weights, threads too: it may be called,
    not changed. ValueError: an unknown name, or a file that is damaged or of no known network.
    """
    return load_weights(name, device).upscaler


@dataclass(frozen=True, slots=True)
class Form:
    """Where a network is held, and whether in bfloat16."""

    device: str = "cpu"
    bfloat16: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """An upscaler, and the SHA-256, hex, of the very weights that it holds."""

    upscaler: Upscaler
    weights: str


def load_weights(
    name: str, device: str = "cpu", weights: str | None = None, bfloat16: bool = False
) -> Loaded:
    """As load(), with the digest. weights: the digest that is wanted; None: the newest, or PATH's.

    bfloat16: hold it so, if it can be. ValueError: the weights here are others than those that are
    wanted.
    """
    base, count = parse_turns(name)
    if count != 1:
        loaded = load_weights(base, device, weights, bfloat16)
        return Loaded(Turned(loaded.upscaler, count), loaded.weights)
    if parts := parse_mix(name):
        return _load_mixed(name, parts, weights, Form(device, bfloat16))
    file = None if name == "bicubic" else WeightsFile.read(locate(name, weights))
    found = digest(name) if file is None else file.digest
    if weights is not None and found != weights:
        raise _other_weights(name, found, weights)
    form = Form(device, bfloat16)
    return Loaded(Bicubic() if file is None else _network(file, form), found)


def _other_weights(name: str, found: str, wanted: str) -> ValueError:
    """What is said where the weights of a name are not those that a plan has."""
    reason = (
        "the file was replaced since: put the earlier one back"
        if "file:" in name
        else "install the version that made the plan"
    )
    return ValueError(
        f"the weights of {name} here have digest {found[:12]}, the plan has {wanted[:12]};"
        f" {reason}, or begin anew with --overwrite"
    )


def _load_mixed(name: str, parts: Sequence[Part], weights: str | None, form: Form) -> Loaded:
    """The network of a mix; of zoo names, those weights that are wanted."""
    files = mixed_files(parts, weights)
    if files is None:
        raise _other_weights(name, digest(name), str(weights))
    read = [WeightsFile.read(path) for path in files]
    found = mixed_digest(parts, [file.digest for file in read])
    with _building:
        key = (name, found, form)
        return Loaded(_kept(key, lambda: _build(mixed(parts, read), name, form)), found)


def holds(name: str, weights: str) -> bool:
    """Whether load_weights() finds the weights with a SHA-256, hex."""
    base, _ = parse_turns(name)
    try:
        if parts := parse_mix(base):
            return mixed_files(parts, weights) is not None
        return weights == (
            digest(base) if base == "bicubic" else digest_file(locate(base, weights))
        )
    except ValueError:
        return False


_networks: OrderedDict[tuple[Path | str | Form, ...], Upscaler] = OrderedDict()
_building = threading.Lock()


def _network(file: WeightsFile, form: Form) -> Upscaler:
    """The network of a file in a form; the same one again for the same weights and efforts."""
    key = (file.path, file.digest, form)
    with _building:
        if community.is_foreign(file):
            return _kept(key, lambda: community.load(file).to(form.device))
        upscaler = _kept(key, lambda: _build(parse_checkpoint(file), file.path.name, form))
        efforts = read_efforts(file.path, file.digest) if upscaler.control else None
        if efforts is None:
            # A method whose cost depends on nothing but the control has counted its own.
            return upscaler
        return _kept((*key, repr(efforts)), lambda: _with_efforts(upscaler, efforts))


def forget() -> None:
    """Load networks anew from now on; who holds one keeps it.

    For second opinions: what lies in memory may have been damaged there.
    """
    with _building:
        _networks.clear()


def _kept(key: tuple[Path | str | Form, ...], make: Callable[[], Upscaler]) -> Upscaler:
    """The network that is kept under a key; it is made where there is none."""
    if key not in _networks:
        _networks[key] = make()
    _networks.move_to_end(key)
    while len(_networks) > KEPT:
        _networks.popitem(last=False)
    return _networks[key]


def _with_efforts(upscaler: Upscaler, efforts: Efforts) -> Upscaler:
    """The same network with another table; whoever has the first one keeps its table."""
    other = copy.copy(upscaler)
    other.efforts = efforts
    return other


def _build(checkpoint: Checkpoint, name: str, form: Form) -> Upscaler:
    """The upscaler of a checkpoint of ours. name: of its file, or of a mix."""
    kind = checkpoint.spec.network
    if kind not in UPSCALERS:
        raise ValueError(f"{name} asks for a network {kind!r}; known are {', '.join(UPSCALERS)}")
    upscaler = UPSCALERS[kind](checkpoint, name).to(form.device)
    return upscaler.to_bfloat16() if form.bfloat16 else upscaler


def digest(name: str) -> str:
    """SHA-256, in hex, of the checkpoint that load() reads.

    For bicubic, of the algorithm's name and version; for a mix, of its parts' digests and shares.
    """
    if name == "bicubic":
        return hashlib.sha256(BICUBIC.encode()).hexdigest()
    base, _ = parse_turns(name)
    if parts := parse_mix(base):
        return mixed_digest(parts, [digest(part.name) for part in parts])
    return digest_file(locate(name))


def parse_tier(tier: str) -> tuple[str, str]:
    """The name of a tier and its effort as written: "auto", a number, or "" for none.

    Paths may hold an @ too.
    """
    match = re.fullmatch(r"(.+?)(?:@(auto|\d+(?:\.\d*)?|\.\d+))?", tier.strip())
    return (match[1], match[2] or "") if match else (tier, "")


def tier_key(tier: str, weights: str | None = None) -> str:
    """What a tier is known by, wherever its file lies.

    The digest of its weights (those that its name stands for, unless they are given), +8 where it
    is turned, and @EFFORT unless it runs at full effort.
    """
    name, effort = parse_tier(tier)
    _, count = parse_turns(name)
    turned = f"+{count}" if count > 1 else ""
    return (weights or digest(name)) + turned + (f"@{effort}" if effort else "")


def facts(name: str) -> dict[str, Any]:
    """What there is to know of a name or file:PATH. ValueError: as of load().

    scales (None: any), parameters, reach, multiple, cost_per_pixel and bytes_per_pixel (at scale 4
    for networks of any scale), notes, psnr from the card; auto: what NAME@auto is at some scales,
    None where the scale does not decide.
    """
    upscaler = load(name)
    scales = None if upscaler.scales is None else sorted(upscaler.scales)
    shown = scales[0] if scales else Fraction(4)
    foreign = upscaler if isinstance(upscaler, community.CommunityUpscaler) else None
    return {
        "name": name,
        "scales": None if scales is None else [str(scale) for scale in scales],
        "parameters": upscaler.parameters,
        "reach": upscaler.reach,
        "multiple": upscaler.multiple if isinstance(upscaler, OnGrid) else 1,
        "control": upscaler.control,
        "floor": None if upscaler.efforts is None else upscaler.efforts.floor,
        "cost_per_pixel": upscaler.cost(shown),
        "bytes_per_pixel": upscaler.memory(shown),
        "psnr": None if name.startswith("file:") else card(name).get("psnr"),
        "auto": _by_scale(upscaler) if isinstance(upscaler, EffortByScale) else None,
        "architecture": foreign.architecture if foreign else None,
        "channels": foreign.channels if foreign else 3,
        "notes": [*foreign.notes] if foreign else [],
    }


def _by_scale(upscaler: EffortByScale) -> dict[str, dict[str, float]]:
    """Effort, setting of the control and multiply-adds a pixel of NAME@auto at some scales."""
    rows = {}
    for scale in SHOWN_SCALES:
        effort = upscaler.effort_by_scale(scale)
        rows[str(scale)] = {"effort": effort, "cost_per_pixel": upscaler.cost(scale, effort)}
        if upscaler.control is not None and upscaler.efforts is not None:
            rows[str(scale)][upscaler.control] = upscaler.efforts.setting(effort)
    return rows
