"""Upscalers by name: what the zoo holds, how to load it, and what it costs."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache, partial
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
from tierscale.models.contract.checkpoints import Checkpoint, digest_file, read_checkpoint
from tierscale.models.contract.efforts import Efforts, read_efforts
from tierscale.models.contract.upscaler import Upscaler
from tierscale.models.convert import community
from tierscale.models.runtime import plain
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.scout import Scout, read_scout
from tierscale.models.turned import Turned

ZOO = Path(__file__).parent / "zoo"

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


def names() -> list[str]:
    """What load() knows by name: bicubic and the files of the zoo, but for the scouts."""
    return [
        "bicubic",
        *sorted(
            path.stem for path in ZOO.glob("*.safetensors") if not path.stem.startswith("scout-")
        ),
    ]


def parse_turns(name: str) -> tuple[str, int]:
    """The network of NAME+8 and how often it is run; 1 where nothing of the kind is written.

    The name of a file may end like that too.
    """
    base, plus, count = name.rpartition("+")
    turned = plus and count.isdecimal() and not os.path.isfile(name.removeprefix("file:"))
    return (base, int(count)) if turned else (name, 1)


def locate(name: str) -> Path:
    """The checkpoint of a zoo name or of file:PATH, +8 or not.

    ValueError listing the known names.
    """
    name, _ = parse_turns(name)
    if name.startswith("file:"):
        path = Path(name.removeprefix("file:"))
        if not path.is_file():
            raise ValueError(
                f"there is no file {path}; give the path of a checkpoint that tierscale train wrote"
            )
        return path
    if name == "bicubic":
        raise ValueError("bicubic has no weights and no control; name a network")
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=2)
        meant = f"; did you mean {' or '.join(near)}?" if near else "; or give file:PATH"
        raise ValueError(f"there is no upscaler {name!r}; known are {', '.join(names())}{meant}")
    return ZOO / f"{name}.safetensors"


def load(name: str, device: str = "cpu") -> Upscaler:
    """The upscaler of a zoo name, bicubic, or file:PATH, on a device; with +8, +4 or +2, turned.

    It is shared by all in this process who load the same weights, threads too: it may be called,
    not changed. ValueError: an unknown name, or a file that is damaged or of no known network.
    """
    base, count = parse_turns(name)
    if count != 1:
        return Turned(load(base, device), count)
    if name == "bicubic":
        return Bicubic()
    path = locate(name)
    if community.is_foreign(path):
        return community.load(path).to(device)
    weights = digest_file(path)
    upscaler, counted = _built(path, weights, device)
    if upscaler.control:
        # A method whose cost depends on nothing but the control has counted its own.
        upscaler.efforts = read_efforts(path, weights) or counted
    return upscaler


# To build one takes a tenth of a second, which planning many small images would spend several times
# on each.
@lru_cache(maxsize=16)
def _built(path: Path, weights: str, device: str) -> tuple[Upscaler, Efforts | None]:
    """The upscaler of a file with a certain SHA-256, and the efforts that it knows of itself."""
    checkpoint = read_checkpoint(path)
    kind = checkpoint.spec.network
    if kind not in UPSCALERS:
        raise ValueError(f"{path} asks for a network {kind!r}; known are {', '.join(UPSCALERS)}")
    upscaler = UPSCALERS[kind](checkpoint, path.name).to(device)
    return upscaler, upscaler.efforts


def digest(name: str) -> str:
    """SHA-256, in hex, of the checkpoint that load() reads.

    For bicubic, of the algorithm's name and version.
    """
    if name == "bicubic":
        return hashlib.sha256(BICUBIC.encode()).hexdigest()
    return digest_file(locate(name))


def parse_tier(tier: str) -> tuple[str, str]:
    """The name of a tier and its effort as written: "auto", a number, or "" for none.

    Paths may hold an @ too.
    """
    match = re.fullmatch(r"(.+?)(?:@(auto|\d+(?:\.\d*)?|\.\d+))?", tier.strip())
    return (match[1], match[2] or "") if match else (tier, "")


def scout_key(tier: str) -> str:
    """What a scout knows a tier by, wherever it lies.

    The digest of its weights, +8 where it is turned, @EFFORT unless it runs at full effort.
    """
    name, effort = parse_tier(tier)
    _, count = parse_turns(name)
    return digest(name) + (f"+{count}" if count > 1 else "") + (f"@{effort}" if effort else "")


def scout_folders() -> tuple[Path, ...]:
    """Where scouts are looked for: the folder of those fitted here, then the zoo.

    The first is $TIERSCALE_SCOUTS, else a folder in the user's home.
    """
    own = os.environ.get("TIERSCALE_SCOUTS")
    return (Path(own) if own else Path.home() / ".local" / "share" / "tierscale" / "scouts"), ZOO


def load_scout(tiers: Sequence[str], scale: Fraction, place: Path | None = None) -> Scout | None:
    """The scout that was fitted for these tiers with these very weights; None: there is none.

    Or for these and fewest others. tiers: as written, from light to full; a tier at less than full
    effort is another one. place: a folder to look in, not scout_folders().
    """
    keys = [scout_key(tier) for tier in tiers]
    folders = scout_folders() if place is None else (place,)
    scouts = [
        read_scout(path)
        for folder in folders
        for path in sorted(folder.glob("scout-*.safetensors"))
    ]
    # Of those that know as many tiers, one that was fitted here comes before the zoo's.
    for scout in sorted(scouts, key=lambda scout: len(scout.tiers)):
        if scout.scale == scale and [key for key in scout.digests if key in keys] == keys:
            return scout.only(keys)
    return None


def open_scout(path: Path, tiers: Sequence[str], scale: Fraction) -> Scout:
    """The scout of a file.

    ValueError: it is none, or was fitted for other tiers, other weights, or another scale.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no scout {path}; tierscale scout fit -o {path} makes one, and upscale finds"
            " the known ones without --scout"
        )
    scout = read_scout(path)
    if scout.scale != scale:
        raise ValueError(
            f"{path} was fitted for scale {scout.scale}, not for {scale}; fit another with"
            " tierscale scout fit"
        )
    known = ", ".join(scout.tiers)
    for tier in tiers:
        if scout_key(tier) not in scout.digests:
            other = "with other weights of it" if tier in scout.tiers else f"for {known}"
            raise ValueError(
                f"{path} does not belong to {tier}: it was fitted {other}; fit another with"
                " tierscale scout fit"
            )
    keys = [scout_key(tier) for tier in tiers]
    if [key for key in scout.digests if key in keys] != keys:
        raise ValueError(f"{path} was fitted for {known}, in this order; name the tiers in it too")
    return scout.only(keys)


def card(name: str) -> dict[str, Any]:
    """What the model card in the zoo says; empty where there is none."""
    path = ZOO / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def listing() -> list[dict[str, Any]]:
    """One row for each name.

    scales (None: any), parameters, reach, cost_per_pixel (at scale 4 for bicubic), psnr from the
    card.
    """
    rows = []
    for name in names():
        upscaler = load(name)
        scales = None if upscaler.scales is None else sorted(upscaler.scales)
        rows.append(
            {
                "name": name,
                "scales": None if scales is None else [str(scale) for scale in scales],
                "parameters": upscaler.parameters,
                "reach": upscaler.reach,
                "control": upscaler.control,
                "floor": None if upscaler.efforts is None else upscaler.efforts.floor,
                "cost_per_pixel": upscaler.cost(scales[0] if scales else Fraction(4)),
                "psnr": card(name).get("psnr"),
            }
        )
    return rows
