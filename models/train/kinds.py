"""Fits the network that judges what kind of picture an image is.

`python -m tierscale.models.train.kinds --hr DIR --clean edsr-x4 --photo edsr-x4-photo --out FILE`
damages crops of photos at random, measures what bicubic and both networks leave wrong on them, and
fits a small network that tells both from the pixels.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models import registry
from tierscale.models.contract.modules import channels_last
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.kind import OUTPUTS, SIDE, UNITS, KindNetwork, told, write_kind_network
from tierscale.models.runtime.resample import resample
from tierscale.models.train.data.degradations import coded, rounded, sharpened, smoothed
from tierscale.models.train.data.mixture import Damage, cut, random_codec, random_damage
from tierscale.models.train.data.photos import Photo, read_photos
from tierscale.models.train.data.shrink import shrink

# Pixels that a crop is cut larger on each side before it is damaged.
MARGIN = 16
# Shares of crops: left as they are; with a kind of damage that no family was trained on.
CLEAN, OTHER = 0.25, 0.25
# Share of those that a JPEG was the last step of whose file tells so.
KEPT = 0.4
# Edge of a crop whose errors are not counted, in input pixels: there, networks see less.
RIM = 6
# No error is less than this in a logarithm: a hundredth of a level.
LEAST = (0.01 / 255) ** 2


def soft(levels: Tensor, rng: np.random.Generator) -> Damage:
    """A scan out of focus."""
    sigma = rng.uniform(1.5, 3.0)
    return Damage((partial(smoothed, sigma=sigma),), blur=sigma)


def upscaled(levels: Tensor, rng: np.random.Generator) -> Damage:
    """A picture that was enlarged before, by 1.5 to 3, and often compressed."""
    factor = Fraction(int(rng.integers(6, 13)), 4)
    codec = random_codec(rng)
    pressed = rng.random() < 0.7

    def enlarge(picture: Tensor) -> Tensor:
        little = shrink(picture, factor)
        place = Placement.whole((little.shape[-2], little.shape[-1]), factor)
        large = rounded(resample(little[None], place, "bicubic")[0])
        return large[:, : picture.shape[-2], : picture.shape[-1]]

    steps = (enlarge, partial(coded, codec=codec)) if pressed else (enlarge,)
    blur = 0.5 * float(factor)
    return (
        Damage(steps, None, blur, 0.0, codec.quality, codec)
        if pressed
        else Damage(steps, blur=blur)
    )


def halftone(levels: Tensor, rng: np.random.Generator) -> Damage:
    """A printed picture: dots of 3 to 6 pixels, at an angle for each colour, scanned a bit soft."""
    pitch, sigma = rng.uniform(3, 6), rng.uniform(0.4, 1.0)
    angles = rng.uniform(0, math.pi / 2, size=3)

    def screen(picture: Tensor) -> Tensor:
        y, x = torch.meshgrid(
            *[torch.arange(side, dtype=torch.float32) for side in picture.shape[-2:]], indexing="ij"
        )
        dots = [
            torch.cos(2 * math.pi / pitch * (math.cos(a) * x + math.sin(a) * y))
            * torch.cos(2 * math.pi / pitch * (math.cos(a) * y - math.sin(a) * x))
            for a in angles[: len(picture)]
        ]
        raised = picture + 90 * torch.stack(dots)
        return smoothed(torch.sigmoid((raised - 127.5) / 12) * 255, sigma)

    return Damage((screen,), blur=sigma)


OTHERS = (soft, upscaled, halftone)


def random_kind(levels: Tensor, rng: np.random.Generator) -> Damage:
    """A damage of any kind, or none."""
    chance = rng.random()
    if chance < CLEAN:
        return Damage(())
    if chance < CLEAN + OTHER:
        return OTHERS[int(rng.integers(len(OTHERS)))](levels, rng)
    return random_damage(rng)


@dataclass(frozen=True, slots=True)
class Sample:
    """A damaged tile (3, SIDE, SIDE), uint8, and what the network should say of it (OUTPUTS,).

    quality: of the JPEG that the tile would be read from, or None.
    """

    tile: Tensor
    target: Tensor
    quality: int | None


def sample(photos: Sequence[Photo], families: Sequence[Upscaler], seed: tuple[int, int]) -> Sample:
    """One damaged tile and what bicubic and the families leave wrong on it."""
    rng = np.random.default_rng(seed)
    areas = np.array([photo.lr[0].numel() for photo in photos], dtype=np.float64)
    photo = photos[int(rng.choice(len(photos), p=areas / areas.sum()))]
    scale, wide = photo.hr.shape[-1] // photo.lr.shape[-1], SIDE + 2 * MARGIN
    y, x = (int(rng.integers(size - wide + 1)) for size in photo.lr.shape[-2:])
    levels = rounded(photo.lr[:, y : y + wide, x : x + wide] * 255)
    damage = random_kind(levels, rng)
    levels = damage.apply(levels)
    top, left = (int(rng.integers(1, MARGIN + 1)) for _ in range(2))
    tile = cut(levels, top, left, SIDE)
    hr = photo.hr[:, y * scale : (y + wide) * scale, x * scale : (x + wide) * scale].float()
    if damage.sharpening:
        hr = rounded(sharpened(hr, damage.sharpening[0] * scale, damage.sharpening[1]))
    truth = cut(hr, top * scale, left * scale, SIDE * scale) / 255
    errors = torch.tensor(measured(tile / 255, truth, families, scale), dtype=torch.float64)
    logs = torch.log(errors.clamp(min=LEAST))
    known = [damage.blur, damage.grain, 1 - damage.quality / 100]
    return Sample(
        tile.byte(),
        torch.tensor(
            [value / unit for value, unit in zip(known, UNITS.values(), strict=True)]
            + [logs[0].item(), *(logs[1:] - logs[0]).tolist()],
            dtype=torch.float32,
        ),
        damage.last.quality if damage.last and damage.last.format == "JPEG" else None,
    )


def measured(tile: Tensor, truth: Tensor, families: Sequence[Upscaler], scale: int) -> list[float]:
    """Mean squared errors of bicubic and of each family's network, inside the rim."""
    place = Placement.whole((SIDE, SIDE), Fraction(scale))
    results = [resample(tile[None], place, "bicubic")]
    with torch.inference_mode():
        results += [network(tile[None], place).pixels for network in families]
    inner = (slice(None), slice(RIM * scale, -RIM * scale), slice(RIM * scale, -RIM * scale))
    return [(result[0].clamp(0, 1) - truth)[inner].square().mean().item() for result in results]


def loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared differences; those of the ratios of errors count most, as they decide."""
    weights = found.new_tensor([1.0] * len(UNITS) + [0.2] + [4.0] * (OUTPUTS - len(UNITS) - 1))
    return (F.smooth_l1_loss(found, wanted, reduction="none", beta=0.2) * weights).mean()


def fit(samples: Sequence[Sample], scale: int, epochs: int, seed: int) -> KindNetwork:
    """A network fitted to samples; each is seen flipped and turned at random."""
    torch.manual_seed(seed)
    network = channels_last(KindNetwork(Fraction(scale)))
    tiles = torch.stack([one.tile for one in samples])
    targets = torch.stack([one.target for one in samples])
    compressions = torch.tensor([told(one.quality) for one in samples])
    batch = 32
    steps = epochs * (len(samples) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        order, total = torch.randperm(len(samples)), 0.0
        for start in range(0, len(samples) - batch + 1, batch):
            chosen = order[start : start + batch]
            seen = tiles[chosen].float() / 255
            if torch.rand(()) < 0.5:
                seen = seen.transpose(-2, -1)
            seen = seen.flip([dim for dim in (-2, -1) if torch.rand(()) < 0.5])
            # Many a picture that was a JPEG once is kept in another format.
            known = compressions[chosen] * (torch.rand(batch, 1) < KEPT)
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                found = network(seen, known)
            step = loss(found.float(), targets[chosen])
            step.backward()
            optimiser.step()
            schedule.step()
            total += step.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {total * batch / len(samples):.4f}", flush=True)
    return network.eval()


def parse() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hr", type=Path, required=True, help="folder of photos")
    parser.add_argument("--clean", required=True, help="network of the clean family")
    parser.add_argument("--photo", required=True, help="network of the photo family")
    parser.add_argument("--samples", type=int, default=20_000, help="damaged tiles")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the network's file")
    return parser.parse_args()


def main() -> None:
    """Fit and store."""
    options = parse()
    torch.set_num_threads(options.threads)
    names = (options.clean, options.photo)
    families = [registry.load(name) for name in names]
    (scale,) = (int(scale) for scale in families[0].scales or ())
    photos = read_photos(options.hr, scale, SIDE + 2 * MARGIN)
    started, samples = time.monotonic(), []
    for index in range(options.samples):
        samples.append(sample(photos, families, (options.seed, index)))
        if (index + 1) % 1000 == 0:
            print(f"{index + 1} tiles, {time.monotonic() - started:.0f} s", flush=True)
    network = fit(samples, scale, options.epochs, options.seed)
    card = {
        "photos": options.hr.name,
        "images": len(photos),
        "samples": len(samples),
        "epochs": options.epochs,
        "seed": options.seed,
        "families": {name: registry.digest(name) for name in names},
    }
    write_kind_network(options.out, network, card)
    print(f"{options.out} is ready")


if __name__ == "__main__":
    main()
