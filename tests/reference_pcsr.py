"""PCSR against recorded outputs of the upstream network."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference_file import Line, Reference
from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.adaptive.pcsr.pixelwise import (
    by_difficulty,
    by_probability,
    difficulty,
    refine,
)
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler, build
from tierscale.models.contract.checkpoints import fill
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.convert.adaptive.pcsr import from_upstream
from tierscale.models.runtime.nearest import Axis
from tierscale.pipeline.inference.statistics import difficulty_cutoffs

SR, PROBABILITY, COST = 2e-5, 1e-5, 1e-6
# Choices that may differ in an image, and how near the border between two samplers they must be.
FLIPS, MARGIN = 3, 1e-4


@dataclass(frozen=True, slots=True)
class Case:
    """One input and what our network makes of it, densely.

    scale: as told; logits: (samplers, H, W).
    """

    lr: Tensor
    scale: Fraction
    features: Tensor
    logits: Tensor
    samples: list[Tensor]

    @property
    def exact(self) -> bool:
        """The output is scale times the input on both axes.

        So that the upscaler's grid is the upstream one.
        """
        return all(
            length * self.scale == hr
            for length, hr in zip(self.lr.shape[2:], self.logits.shape[1:], strict=True)
        )


def check(reference: Reference) -> list[Line]:
    """One line for each output.

    Features, cost list, probabilities, and flags and image of each run.
    """
    checkpoint = from_upstream(reference.weights, reference.config, reference.mean)
    network, upscaler = (
        Pcsr(**checkpoint.spec.arguments).eval(),
        build(checkpoint, reference.path.name),
    )
    fill(network, checkpoint.tensors, reference.path.name)
    cases = {name.removesuffix(".lr"): name for name in reference.inputs if name.endswith(".lr")}
    lines = []
    with torch.inference_mode():
        for name in cases:
            case = run(network, reference, name)
            lines += [
                line
                for key, wanted in reference.outputs.items()
                if key.startswith(f"{name}.")
                and (line := compare(case, upscaler, reference, key, wanted))
            ]
    return lines


def run(network: Pcsr, reference: Reference, name: str) -> Case:
    """The network's dense form on one input.

    Its grid is what the recorded sizes say, also where they are no exact multiple.
    """
    lr = reference.inputs[f"{name}.lr"]
    scale_of_case = next(
        setting["scale"] for key, setting in reference.settings.items() if key.split(".")[0] == name
    )
    scale = Fraction(str(scale_of_case)).limit_denominator(1000)
    found = [
        tensor.shape[-2:]
        for key, tensor in reference.outputs.items()
        if key.startswith(f"{name}.") and key.rpartition(".")[2] in ("sr", "prob_heavy")
    ]
    sizes = found[0] if found else [hr_length(length, scale) for length in lr.shape[2:]]
    rows, columns = (
        Axis(Fraction(hr, length), 0, hr, 0, length)
        for hr, length in zip(sizes, lr.shape[2:], strict=True)
    )
    features = network.encoder(lr - torch.tensor(reference.mean).view(3, 1, 1))
    samples = [sampler(features, rows, columns)[0] for sampler in network.samplers]
    return Case(lr, scale, features, network.classifier(features, rows, columns)[0], samples)


def compare(
    case: Case, upscaler: PcsrUpscaler, reference: Reference, key: str, wanted: Tensor
) -> Line | None:
    """The line of one output; None: of a kind that is not known here."""
    # A run's name may hold dots, as in "lr.k0.5.sr".
    run, _, kind = key.partition(".")[2].rpartition(".")
    if not run and kind == "feat":
        return line(key, case.features - wanted, SR)
    if not run and kind == "cost_list":
        return line(key, upscaler.cost_list(case.scale) - wanted, COST)
    if not run and kind == "prob_heavy":
        return line(
            key, difficulty(case.logits.flatten(1)).view(wanted.shape) - wanted, PROBABILITY
        )
    setting = reference.settings.get(key.rpartition(".")[0])
    if not run or setting is None or kind not in ("flag", "sr"):
        return None
    pixels, chosen, margin = enlarge(case, upscaler, setting)
    flags = reference.outputs.get(key.removesuffix("sr") + "flag") if kind == "sr" else wanted
    if flags is None:  # a run without refinement shares the flags of the run it is named after
        flags = reference.outputs[key.replace("_noref", "").removesuffix("sr") + "flag"]
    flipped = chosen != flags
    excused = int(flipped.sum()) <= FLIPS and bool((margin[flipped] < MARGIN).all())
    if kind == "flag":
        return Line(f"out.{key}", float(flipped.sum()), FLIPS, excused)
    touched = (
        F.max_pool2d(flipped[None].float(), 3, 1, 1)[0] > 0
        if setting.get("refinement", True)
        else flipped
    )
    found = line(key, (pixels - wanted[0]).masked_fill(touched, 0), SR)
    return Line(found.key, found.error, found.tolerance, found.passed and excused)


def enlarge(
    case: Case, upscaler: PcsrUpscaler, setting: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Image (3, H, W), samplers (H, W).

    And how far each pixel is from the border between two samplers, of one run.
    """
    refined, logits = bool(setting.get("refinement", True)), case.logits.flatten(1)
    if setting.get("adaptive_cluster"):
        values = difficulty(logits)
        found = difficulty_cutoffs(values.numpy(), len(logits))
        settings = {
            "threshold" if index == 0 else f"threshold{index + 1}": value
            for index, value in enumerate(found)
        }
        decide = partial(by_difficulty, torch.tensor(found, dtype=torch.float64))
        margin = torch.stack(
            [(values - value).abs() / (values.max() - values.min()) for value in found]
        ).amin(0)
    else:
        settings = {"k": float(setting["k"])}
        handicaps = settings["k"] * upscaler.cost_list(case.scale).double().log()
        decide = partial(by_probability, handicaps)
        best = (logits - handicaps[:, None]).topk(2, dim=0).values
        margin = best[0] - best[1]
    size = case.logits.shape[1:]
    if case.exact:
        place = Placement.whole((case.lr.shape[2], case.lr.shape[3]), case.scale)
        made = upscaler(case.lr, place, settings={**settings, "refine": float(refined)})
        assert made.choice is not None
        return made.pixels[0], made.choice[0], margin.view(size)
    chosen = decide(logits).view(size)
    pixels = F.interpolate(case.lr, size=size, mode="bilinear", align_corners=False)[0]
    for index, sample in enumerate(case.samples):
        pixels += torch.where(chosen == index, sample, 0)
    if refined:
        refine(pixels, chosen, len(case.samples))
    return pixels, chosen, margin.view(size)


def line(key: str, difference: Tensor, tolerance: float) -> Line:
    """The line of an output whose values may differ by `tolerance`."""
    error = difference.abs().max().item()
    return Line(f"out.{key}", error, tolerance, error <= tolerance)
