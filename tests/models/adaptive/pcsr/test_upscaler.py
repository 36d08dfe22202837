"""PCSR under the contract, on small networks with random weights.

What it skips, how it decides, and where it is refused.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.adaptive.pcsr.small_pcsr import ENCODERS, make, smooth, whole
from tests.reference_file import read_reference
from tests.reference_pcsr import check
from tierscale.models import registry
from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.adaptive.pcsr.pixelwise import (
    by_difficulty,
    by_probability,
    difficulty,
    refine,
)
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler, build
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    digest_file,
    write_checkpoint,
)
from tierscale.models.contract.efforts import Efforts, write_efforts
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.convert.adaptive.pcsr import from_upstream
from tierscale.models.runtime import resample
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.nearest import Axis, axes
from tierscale.models.train.calibrate import measure
from tierscale.pipeline.inference.statistics import difficulty_cutoffs

pytestmark = pytest.mark.usefixtures("one_thread")


def dense(upscaler: PcsrUpscaler, x: Tensor, place: Placement, chosen: Tensor) -> Tensor:
    """The image of given samplers (H, W) by the form that is trained.

    Every sampler at every pixel, not refined.
    """
    rows, columns = axes(place, 0, x.shape[2], x.shape[3])
    features = upscaler.encoder(x - upscaler.mean)
    made = resample.resample(x, place, "bilinear")
    for index, sampler in enumerate(upscaler.samplers):
        made = made + torch.where(chosen == index, sampler(features, rows, columns), 0)
    return made


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("scale", [Fraction(4), Fraction(3), Fraction(5, 2), Fraction(27, 10)])
def test_skipping_gives_what_the_trained_form_gives(encoder: str, scale: Fraction) -> None:
    upscaler, x = make(encoder, ((4,), (6, 6), (9, 9, 9))), smooth(1, 37, 31)
    place = whole(x, scale)
    with torch.inference_mode():
        made = upscaler(x, place, settings={"k": 0, "refine": 0})
        assert made.choice is not None
        rows, columns = axes(place, 0, 37, 31)
        logits = upscaler.classifier(upscaler.encoder(x - upscaler.mean), rows, columns)
        assert (
            made.pixels.shape[2:]
            == (hr_length(37, scale), hr_length(31, scale))
            == made.choice.shape[1:]
        )
        assert (made.choice != logits.argmax(1)).sum() <= 2
        torch.testing.assert_close(
            made.pixels, dense(upscaler, x, place, made.choice), atol=1e-5, rtol=1e-5
        )
        assert set(made.choice.unique().tolist()) == {
            0,
            1,
            2,
        }, "the test is about three samplers at work"


def test_the_place_in_the_nearest_pixel_is_exact() -> None:
    for scale in (Fraction(4), Fraction(3), Fraction(5, 2), Fraction(27, 10), Fraction(13, 7)):
        axis = Axis(scale, 0, hr_length(50, scale), 0, 50)
        centre = (torch.arange(axis.count).double() + 0.5) / float(scale) - 0.5
        place = axis.source() + axis.offsets()[axis.phase()] / 2
        torch.testing.assert_close(place, centre, atol=1e-12, rtol=0)
        assert axis.source().min() == 0
        assert axis.source().max() == 49
        assert axis.offsets().abs().max() <= 1


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_window_gives_the_same_bits_alone_and_in_a_batch(encoder: str) -> None:
    upscaler, x = make(encoder), smooth(3, 22, 17)
    with torch.inference_mode():
        together = upscaler(x, whole(x), settings={"k": 0.2})
        alone = [upscaler(x[i : i + 1], whole(x[:1]), settings={"k": 0.2}) for i in range(3)]
    assert together.choice is not None
    assert torch.equal(together.pixels, torch.cat([one.pixels for one in alone]))
    assert together.macs.tolist() == [one.macs.item() for one in alone]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("scale", [4, 2])
def test_nothing_beyond_reach_matters_and_what_is_within_does(encoder: str, scale: int) -> None:
    upscaler, side = make(encoder), 57
    assert upscaler.reach is not None
    x, middle = smooth(1, side, side), side // 2
    seen = []
    with torch.inference_mode():
        before = upscaler(x, whole(x, scale), settings={"k": 0}).pixels
        for far in (upscaler.reach - 1, upscaler.reach + 1):
            y = x.clone()
            y[:, :, middle + far].add_(100)
            after = upscaler(y, whole(y, scale), settings={"k": 0}).pixels
            seen.append(
                bool((after - before)[:, :, middle * scale : (middle + 1) * scale].abs().max() > 0)
            )
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("encoder", "scale"),
    [("carn", Fraction(4)), ("fsrcnn", Fraction(5, 2)), ("srresnet", Fraction(3))],
)
@pytest.mark.parametrize("core", [16, 30])
def test_tiled_equals_whole(encoder: str, scale: Fraction, core: int) -> None:
    upscaler, x = make(encoder), smooth(1, 60, 60)
    whole_image = Placement(scale, (60, 60), ((0, 0),))
    assert upscaler.reach is not None
    halo = upscaler.reach
    with torch.inference_mode():
        expected = upscaler(x, whole_image, settings={"k": 0})
        for top in range(0, 60, core):
            for left in range(0, 60, core):
                y0, x0, y1, x1 = (
                    max(0, top - halo),
                    max(0, left - halo),
                    min(60, top + core + halo),
                    min(60, left + core + halo),
                )
                place = Placement(scale, (60, 60), ((y0, x0),))
                made = upscaler(x[:, :, y0:y1, x0:x1], place, settings={"k": 0})
                (hy, _), (hx, _) = place.hr_spans(0, y1 - y0, x1 - x0)
                (ty, by), (tx, bx) = Placement(scale, (60, 60), ((top, left),)).hr_spans(
                    0, min(core, 60 - top), min(core, 60 - left)
                )
                assert made.choice is not None and expected.choice is not None
                flips = (
                    made.choice[0, ty - hy : by - hy, tx - hx : bx - hx]
                    != expected.choice[0, ty:by, tx:bx]
                )
                assert flips.sum() <= 1
                if not flips.any():
                    part = made.pixels[:, :, ty - hy : by - hy, tx - hx : bx - hx]
                    torch.testing.assert_close(
                        part, expected.pixels[:, :, ty:by, tx:bx], atol=1e-5, rtol=0
                    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    "settings", [{}, {"k": 0.0}, {"k": 50.0}, {"k": -50.0}, {"threshold": 0.5}]
)
def test_macs_are_those_executed(encoder: str, settings: Mapping[str, float]) -> None:
    upscaler, x = make(encoder, ((20,), (30, 30))), smooth(1, 75, 70)
    macs = upscaler(x, whole(x), settings=settings).macs
    residual = resample.multiply_adds(
        3, 70, 300, 280, "bilinear"
    )  # sums of shifted slices, which the counter does not see
    assert macs.tolist() == [executed(lambda: upscaler(x, whole(x), settings=settings)) + residual]
    if not settings:
        assert macs.item() / (75 * 70) == pytest.approx(upscaler.cost(Fraction(4)))


def test_light_pixels_are_not_made_by_the_heavy_sampler_and_the_other_way_round() -> None:
    upscaler, x = make(samplers=((5,), (40, 40))), smooth(1, 30, 30)
    called: list[tuple[int, int]] = []
    for index, sampler in enumerate(upscaler.samplers):
        plain = sampler.at
        sampler.at = lambda table, points, i=index, at=plain: (
            called.append((i, len(points))) or at(table, points)
        )  # type: ignore[method-assign]
    chosen = upscaler(x, whole(x), settings={"k": 0}).choice
    assert chosen is not None
    counted = {index: sum(count for i, count in called if i == index) for index in (0, 1)}
    assert counted == {0: (chosen == 0).sum().item(), 1: (chosen == 1).sum().item()}
    assert min(counted.values()) > 0


def test_more_effort_never_costs_less_and_all_is_the_full_network() -> None:
    upscaler, x = make("carn", ((4,), (40, 40))), smooth(1, 40, 40)
    with torch.inference_mode():
        upscaler.calibration_grid = (50.0, *(step / 20 for step in range(8, -9, -1)), -8.0)
        upscaler.efforts = Efforts("k", *measure(upscaler, [x], Fraction(4)), "", {})
        macs = [upscaler(x, whole(x), effort).macs.item() for effort in np.linspace(0, 1, 21)]
        full = upscaler(x, whole(x))
        assert full.choice is not None
        assert (full.choice == 1).all()
        torch.testing.assert_close(
            full.pixels, dense(upscaler, x, whole(x), full.choice), atol=1e-5, rtol=0
        )
    assert macs == sorted(macs)
    assert macs[0] < 0.9 * macs[-1]
    assert upscaler.cost(Fraction(4), 0.01) == pytest.approx(
        upscaler.cost(Fraction(4)) * upscaler.efforts.floor
    )


def test_a_flat_image_is_all_light() -> None:
    upscaler, x = make(), torch.full((1, 3, 20, 20), 0.3)
    found, _ = upscaler.difficulties(x, whole(x))
    inner = found[:, 40:-40, 40:-40].round(decimals=5)
    assert len(inner.unique()) <= 16, "one for each phase"
    threshold = difficulty_cutoffs(np.full((50, 50), 0.37, np.float32))
    assert threshold == pytest.approx((0.37,))
    same = torch.tensor([[0.1], [0.1]]).expand(2, 9)
    level = difficulty_cutoffs(difficulty(same).numpy())
    assert by_difficulty(torch.tensor(level, dtype=torch.float64), same).tolist() == [0] * 9


def test_thresholds_lie_between_groups_whatever_the_order_of_pixels() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(centre, 0.02, 400) for centre in (0.2, 0.5, 0.8)]
    values = np.concatenate(groups).astype(np.float32)
    low, high = difficulty_cutoffs(values, 3)
    assert groups[0].max() < low < groups[1].min() < groups[1].max() < high < groups[2].min()
    assert difficulty_cutoffs(rng.permutation(values), 3) == (low, high)
    assert len(difficulty_cutoffs(np.array([0.0, 0.0, 1.0], np.float32), 4)) == 3


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.7, 0.3), 0.3),
        ((0.5, 0.3, 0.2), 0.5),
        ((0.4, 0.3, 0.2, 0.1), 0.3),
        ((0.3, 0.3, 0.2, 0.15, 0.05), 0.4),
    ],
)
def test_difficulty_is_the_probability_of_the_heavier_samplers(
    probabilities: tuple[float, ...], expected: float
) -> None:
    logits = torch.tensor(probabilities).log()[:, None].expand(-1, 7)
    torch.testing.assert_close(difficulty(logits), torch.full((7,), expected))


def test_the_automatic_decision_splits_by_difficulty() -> None:
    upscaler, x = make("fsrcnn", ((4,), (6, 6), (9, 9, 9))), smooth(1, 30, 30)
    with torch.inference_mode():
        found, macs = upscaler.difficulties(x, whole(x))
        low, high = difficulty_cutoffs(found.numpy(), 3)
        made = upscaler(x, whole(x), settings={"threshold": low, "threshold2": high})
        full = upscaler(x, whole(x), settings={"k": 0})
    assert made.choice is not None
    assert torch.equal(made.choice.long(), (found > low).long() + (found > high).long())
    assert macs.item() < full.macs.item()


def test_costs_decide_by_k_and_ties_go_to_the_lighter() -> None:
    logits = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.5, 1.0], [0.0, 0.5, 3.0]])
    assert by_probability(torch.zeros(3), logits).tolist() == [0, 1, 2]
    assert by_probability(torch.tensor([0.0, 1.0, 9.0]), logits).tolist() == [0, 0, 0]


def test_refinement_means_light_pixels_that_touch_heavy_ones() -> None:
    torch.manual_seed(0)
    before, chosen = torch.rand(3, 9, 11), torch.zeros(9, 11, dtype=torch.uint8)
    chosen[4, 5], chosen[0, 9] = 1, 2
    after = before.clone()
    refine(after, chosen, 3)
    means = F.avg_pool2d(before, 3, 1)
    expected = before.clone()
    for row, column in [
        (3, 4),
        (3, 5),
        (3, 6),
        (4, 4),
        (4, 6),
        (5, 4),
        (5, 5),
        (5, 6),
        (1, 8),
        (1, 9),
    ]:
        expected[:, row, column] = means[:, row - 1, column - 1]
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("samplers", [2, 3, 4, 5])
def test_refinement_changes_pixels_of_the_lighter_half_beside_the_heavier(samplers: int) -> None:
    torch.manual_seed(1)
    pixels, light = torch.rand(1, 5, 5), samplers // 2
    for one in range(samplers):
        for beside in range(samplers):
            chosen, after = torch.full((5, 5), one, dtype=torch.uint8), pixels.clone()
            chosen[2, 3] = beside
            refine(after, chosen, samplers)
            assert bool(after[0, 2, 2] != pixels[0, 2, 2]) == (one < light <= beside), (one, beside)


def test_with_four_samplers_an_upscaler_refines_as_refine_does() -> None:
    upscaler, x = make("fsrcnn", ((4,), (6,), (9,), (12,))), smooth(1, 30, 30)
    with torch.inference_mode():
        plain = upscaler(x, whole(x), settings={"k": 0, "refine": 0})
        made = upscaler(x, whole(x), settings={"k": 0})
    assert plain.choice is not None
    assert plain.choice.unique().tolist() == [0, 1, 2, 3], "all four are at work"
    expected = plain.pixels[0].clone()
    refine(expected, plain.choice[0], 4)
    assert torch.equal(made.pixels[0], expected)


@pytest.mark.parametrize("name", ["pcsr_carn_x4", "pcsr_fsrcnn_x4"])
def test_upstream_weights_give_the_upstream_outputs(shared: Path, name: str) -> None:
    reference = read_reference(shared / "reference" / f"{name}.safetensors")
    lines = check(reference)
    assert {line.key for line in lines} == {f"out.{key}" for key in reference.outputs}
    assert [line for line in lines if not line.passed] == []


def test_weights_come_back_with_their_table(tmp_path: Path) -> None:
    upscaler, x, path = make("srresnet"), smooth(1, 16, 16), tmp_path / "a.safetensors"
    torch.manual_seed(3)
    tensors = Pcsr(**upscaler.spec.arguments).state_dict()
    write_checkpoint(path, Checkpoint(upscaler.spec, tensors))
    again = registry.load(f"file:{path}")
    with pytest.raises(
        ValueError,
        match=(
            r"a.safetensors costs at an effort of 0.5 was not measured; run tierscale models"
            r" calibrate"
        ),
    ):
        again(x, whole(x), 0.5)
    write_efforts(path, Efforts("k", (5.0, 0.0, -5.0), (0.2, 0.5, 1.0), digest_file(path), {}))
    again = registry.load(f"file:{path}")
    assert again.efforts is not None
    assert torch.equal(again(x, whole(x), 0.5).pixels, again(x, whole(x), settings={"k": 0}).pixels)


def test_srresnet_features_are_those_before_it_grows() -> None:
    torch.manual_seed(0)
    full, part, x = Srresnet(3, 6, 2), Srresnet(4, 6, 2, features_only=True), torch.rand(1, 3, 9, 8)
    part.load_state_dict(
        {name: tensor for name, tensor in full.state_dict().items() if name in part.state_dict()}
    )
    with torch.inference_mode():
        grown = F.leaky_relu(F.pixel_shuffle(full.grow[0](part(x)), 3), 0.1)  # type: ignore[index]
        torch.testing.assert_close(full.exit(F.leaky_relu(full.smooth(grown), 0.1)), full(x))


def test_what_cannot_work_is_refused(shared: Path) -> None:
    upscaler, x = make(), smooth(1, 12, 12)
    with pytest.raises(ValueError, match=r"\(1, 1, 12, 12\).*three equal channels"):
        upscaler(x[:, :1], whole(x))
    with pytest.raises(ValueError, match=r"effort of 1.5 is not a share"):
        upscaler(x, whole(x), 1.5)
    with pytest.raises(ValueError, match=r"given treshold, but knows only k, refine, threshold"):
        upscaler(x, whole(x), settings={"treshold": 0.5})
    with pytest.raises(ValueError, match="no encoder 'vgg'; known are carn, fsrcnn, srresnet"):
        Pcsr("vgg")
    with pytest.raises(ValueError, match="two or more samplers, not 1"):
        Pcsr(samplers=((4,),))
    with pytest.raises(ValueError, match=r"asks for a PCSR of .*'layers': 3.*cannot be built"):
        build(Checkpoint(ModelSpec("pcsr", 4, {"layers": 3}), {}), "x")
    reference = read_reference(shared / "reference" / "pcsr_fsrcnn_x4.safetensors")
    key = "light_sampler.imnet.layers.2.weight"
    with pytest.raises(ValueError, match=rf"{key}.*\(9, 10\).*\(10, 10\)"):
        from_upstream(
            {**reference.weights, key: torch.zeros(9, 10)}, reference.config, reference.mean
        )
    with pytest.raises(ValueError, match="lacks 'classifier_spec'"):
        from_upstream(
            reference.weights,
            {name: spec for name, spec in reference.config.items() if name != "classifier_spec"},
            reference.mean,
        )
