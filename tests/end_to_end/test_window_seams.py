"""No seam between windows, nor between tiers, of networks that look at all of their window."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from tests.reference_file import calibrated
from tierscale.models import registry
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.array import enlarge_array, work

pytestmark = pytest.mark.usefixtures("one_thread")

COFFEE = skimage.data.coffee().transpose(2, 0, 1)[:, 20:340, 90:470]
TILE = 16
# Reference file -> the scale that is tried.
RECORDED = {
    "adarcan_g2b3f32_x2": 2,
    "ape_edsr_b8f32_x2": 2,
    "ape_rcan_g4b2f16_x2": 2,
    "ape_vdsr_b10f24_x3": 3,
    "classsr_fsrcnn_x4": 4,
    "anysr_edsr_b2f64_srno_w64": 2,
}

# So that depths lie between no block and all of them.
LOWER = {"predictor.layers.4.bias": 1.2}


def seam(pixels: np.ndarray, grid: Grid, every: tuple[int, int]) -> float:
    """Mean step across each `every`-th border of tiles (rows, columns), over that one input pixel
    beside it: docs/decisions/seams.md.
    """
    across, beside, scale = [], [], int(grid.scale)
    for axis in (0, 1):
        step = np.abs(np.diff(pixels.astype(float), axis=1 + axis)).mean(axis=(0, 2 - axis))
        for edge in range(
            every[axis] * TILE * scale, (grid.size[axis] - 4) * scale, every[axis] * TILE * scale
        ):
            across.append(step[edge - 1])
            beside += [step[edge - 1 - scale], step[edge - 1 + scale]]
    assert len(across) >= 5
    return float(np.mean(across) / np.mean(beside))


Chequered = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def chequered(monkeypatch: pytest.MonkeyPatch) -> Chequered:
    """A function: in what it gives, tiers lie in a chequerboard of two."""

    @contextmanager
    def patched() -> Iterator[None]:
        with monkeypatch.context() as changed:
            changed.setattr(
                work,
                "route",
                lambda scored, timings: np.add.outer(*map(np.arange, scored.grid.tiles)) % 2,
            )
            yield

    return patched


def quick_only(names: Iterable[str], quick: str) -> list[object]:
    """Names as parameters: `quick` in every run, the others, which take 10 to 90 s, as slow."""
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quick_only(sorted(RECORDED), "classsr_fsrcnn_x4"))
def test_no_seam(name: str, shared: Path, tmp_path: Path, chequered: Chequered) -> None:
    lower = LOWER if name.startswith("ada") else {}
    check_seams(calibrated(shared, name, tmp_path, lower), RECORDED[name], chequered)


@pytest.mark.parametrize(
    "name", quick_only(["anysr-edsr", "ape-edsr-x4", "classsr-carn-x4"], "ape-edsr-x4")
)
def test_no_seam_of_the_zoo(name: str, chequered: Chequered) -> None:
    check_seams(name, 4, chequered)


def check_seams(name: str, scale: int, chequered: Chequered) -> None:
    """No seam of a network half way between its floor and full effort: in full most of them decide
    nothing.
    """
    efforts = registry.load(name).efforts
    assert efforts is not None
    tier = f"{name}@{(efforts.floor + 1) / 2:.2f}"
    alone = enlarge_array(
        COFFEE, Options(scale=Fraction(scale), tiers=(tier,), policy=Full(), tile=TILE)
    )
    # Each shard is one window here.
    assert seam(alone.pixels, alone.plan.grid, alone.plan.grid.shard_tiles) <= 1.05
    # Beside bicubic, as no picture would be routed.
    with chequered():
        mixed = enlarge_array(
            COFFEE[:, 60:156, 80:192],
            Options(scale=Fraction(scale), tiers=("bicubic", tier), tile=TILE),
        )
    assert set(mixed.plan.routes.ravel().tolist()) == {0, 1}
    assert seam(mixed.pixels, mixed.plan.grid, (1, 1)) <= 1.05


def test_a_seam_is_seen() -> None:
    made = enlarge_array(COFFEE, Options(tiers=("bicubic",), policy=Full(), tile=TILE))
    assert seam(made.pixels, made.plan.grid, (1, 1)) <= 1.05
    darker = (
        np.add.outer(*(np.arange(length) // (4 * TILE) for length in made.pixels.shape[1:])) % 2
        == 1
    )
    made.pixels[:, darker] -= np.minimum(made.pixels[:, darker], 2)
    assert seam(made.pixels, made.plan.grid, (1, 1)) > 1.05
