"""Our CARN and FSRCNN against the published weights and outputs recorded in the reference data."""

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from models.bicubic import Bicubic
from models.carn import Carn
from models.fsrcnn import Fsrcnn
from models.plain import PlainUpscaler
from models.quality import psnr
from models.stream import RowNetwork
from models.train.degrade import shrink
from models.train.photos import centre_crop, image_files, read_image
from models.upscaler import Placement
from models.weights import Blueprint, fill

SHARED = Path(os.environ.get("TIERSCALE_SHARED", Path(__file__).parents[2] / "shared"))
REFERENCE = SHARED / "reference"
EVAL = SHARED / "data" / "eval"


pytestmark = pytest.mark.usefixtures("one_thread")


def carn_name(theirs: str) -> str | None:
    """Our name for a weight of the published CARN-M; None for one that inference does not need."""
    parts = theirs.split(".")
    if parts[-1] == "num_batches_tracked":
        return None
    if parts[0] in ("entry", "exit"):
        return theirs
    if parts[0] == "upsample":
        return f"grow.{int(parts[3]) // 3}.{parts[-1]}"
    if parts[0].startswith("c"):
        return f"merges.{int(parts[0][1]) - 1}.{parts[1]}.{parts[2]}"
    block = int(parts[0][1]) - 1
    if parts[1].startswith("c"):
        return f"blocks.{block}.merges.{int(parts[1][1]) - 1}.{parts[2]}.{parts[3]}"
    layer = {"0": "first", "2": "second", "4": "mix"}[parts[3]]
    return f"blocks.{block}.unit.{layer}.{parts[4]}"


def fsrcnn_name(theirs: str) -> str | None:
    """Our name for a weight of the published FSRCNN."""
    stage, _, rest = theirs.partition(".")
    if stage == "tail_conv":
        return f"enlarge.{rest}"
    if stage == "head_conv":
        return f"extract.{rest}"
    index, _, inner = rest.partition(".")
    if index in ("0", "6"):
        return f"{'shrink' if index == '0' else 'expand'}.{inner}"
    return f"map.{int(index) - 1}.{inner}"


CASES: list[tuple[str, Callable[[], RowNetwork], Callable[[str], str | None]]] = [
    ("fsrcnn_d56_x4", lambda: Fsrcnn(4), fsrcnn_name),
    ("carn_nf64_x4", lambda: Carn(4, norm=True), carn_name),
    ("carn_nf24_x2", lambda: Carn(2, features=24, norm=True), carn_name),
]


def read(name: str, rename: Callable[[str], str | None]) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[float, float, float]]:
    """Weights under our names, everything else under theirs, and the mean."""
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        mean = json.loads(file.metadata().get("normalisation", "{}")) if "trained" in file.metadata()["weights"] else {}
    renamed = {rename(key.removeprefix("sd.")): tensor for key, tensor in tensors.items() if key.startswith("sd.")}
    red, green, blue = mean.get("mean", (0.0, 0.0, 0.0))
    return {key: tensor for key, tensor in renamed.items() if key is not None}, tensors, (red, green, blue)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference data at {REFERENCE}; set TIERSCALE_SHARED")
@pytest.mark.parametrize(("name", "make", "rename"), CASES, ids=[case[0] for case in CASES])
def test_published_weights_give_the_published_output(
    name: str, make: Callable[[], RowNetwork], rename: Callable[[str], str | None]
) -> None:
    weights, tensors, mean = read(name, rename)
    network = make()
    counts = {key: tensor for key, tensor in network.state_dict().items() if key.endswith("num_batches_tracked")}
    fill(network, {**weights, **counts}, name)
    plain = network.eval().fold() if isinstance(network, Carn) else network
    upscaler = PlainUpscaler(plain, Blueprint(name.partition("_")[0], plain.scale, {}, mean))
    for key in [key for key in tensors if key.startswith("in.")]:
        lr = tensors[key]
        with torch.inference_mode():
            made = upscaler(lr, Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(plain.scale))).pixels
        torch.testing.assert_close(made, tensors[f"out.{key.split('.')[1]}.sr"], atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(not EVAL.is_dir(), reason=f"no evaluation images at {EVAL}; set TIERSCALE_SHARED")
@pytest.mark.parametrize(("folder", "grey", "floor"), [("Set14", {"img_003"}, 24.58), ("Urban100", set(), 21.56)])
def test_the_floor_of_bicubic_is_the_measured_one(folder: str, grey: set[str], floor: float) -> None:
    found = []
    for path in image_files(EVAL / folder):
        if path.stem in grey:
            continue
        hr = centre_crop(read_image(path), 4) / 255
        lr = shrink(hr, 4)
        made = Bicubic()(lr[None], Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(4))).pixels[0]
        found.append(psnr(made, hr, 4))
    assert sum(found) / len(found) == pytest.approx(floor, abs=0.01)
