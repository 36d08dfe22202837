"""The routers that are compared: each sees the small image alone, and tells what errs on every tile
by how much, or ranks the tiles.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.scenes import SCALE, SHARED, Scene, sums
from tests.plans import LIGHT, draft_of
from tests.reference_file import read_reference
from tierscale.models import registry as models
from tierscale.models.adaptive.classsr.upscaler import ClassSrUpscaler
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler
from tierscale.models.contract.checkpoints import Checkpoint
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert.adaptive import classsr as upstream_classsr
from tierscale.models.convert.adaptive import pcsr as upstream_pcsr
from tierscale.models.runtime.patches import SIDE, STEP, Patches
from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.inference import difficulty
from tierscale.pipeline.plan.value_range import ValueRange

# A router: predictions (tiles, T), or numbers (tiles,) that rank tiles, for tiles of some side of a
# scene.
Router = Callable[[Scene, int], np.ndarray]


def whole(scene: Scene) -> tuple[torch.Tensor, Placement]:
    """A scene as one window."""
    height, width = scene.lr.shape[1:]
    return torch.from_numpy(scene.lr)[None], Placement.whole((height, width), Fraction(SCALE))


def tile_means(values: np.ndarray, tile: int) -> np.ndarray:
    """Means of a map (h, w) of input pixels over tiles."""
    return (sums(values.astype(np.float64), tile) / sums(np.ones(values.shape), tile)).ravel()


def scored(scout: difficulty.Scout | None, tiers: int) -> Router:
    """The prescan of the pipeline; plain detail without a scout."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        height, width = scene.lr.shape[1:]
        draft = draft_of((height, width), (LIGHT,) * tiers, scale=Fraction(SCALE), tile=tile)

        def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
            return scene.lr[:, y0:y1, x0:x1]

        rows = Span(0, draft.grid.tiles[0])
        found = difficulty.score(draft, ValueRange(0.0, 1.0, 0.0, 1.0), read, rows, scout)
        return found.reshape(-1, tiers) if scout is not None else found.reshape(-1, tiers)[:, 0]

    return route


def classifier(upscaler: ClassSrUpscaler) -> Router:
    """ClassSR's classifier: the class that it expects, on its own tiles of 32."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        window, place = whole(scene)
        cut = Patches(place, *window.shape[2:], SIDE, STEP)
        with torch.inference_mode():
            shares = torch.softmax(upscaler.classifier(cut.tiles(window)), dim=1)
        return tile_means(
            cut.spread(shares @ torch.arange(shares.shape[1]).float(), 0).numpy(), tile
        )

    return route


def heavy(upscaler: PcsrUpscaler) -> Router:
    """PCSR's mean probability that a pixel is heavy."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        with torch.inference_mode():
            found, _ = upscaler.difficulties(*whole(scene))
        return tile_means(F.avg_pool2d(found[None], SCALE)[0, 0].numpy(), tile)

    return route


def weights_of(name: str, reference: str, published: Callable[..., Checkpoint]) -> tuple[Any, str]:
    """A method of the zoo; where the zoo has none yet, the published weights of the reference data;
    and which it is.
    """
    if name in models.names():
        return models.load(name), name
    recorded = read_reference(SHARED / "reference" / f"{reference}.safetensors")
    checkpoint = published(recorded.weights, recorded.config, recorded.mean)
    return (
        models.UPSCALERS[checkpoint.spec.network](checkpoint, reference),
        f"published weights, {reference}",
    )


def routers(tiers: Sequence[str]) -> tuple[dict[str, Router], dict[str, str]]:
    """All routers by name, and what each one is."""
    by_class, class_name = weights_of(
        "classsr-carn-x4", "classsr_fsrcnn_x4", upstream_classsr.from_upstream
    )
    by_pixel, pixel_name = weights_of("pcsr-carn-x4", "pcsr_carn_x4", upstream_pcsr.from_upstream)
    scout = models.load_scout(tiers, Fraction(SCALE))
    if scout is None:
        raise SystemExit(
            f"no scout knows {', '.join(tiers)}; run tierscale scout fit --tiers {','.join(tiers)}"
            " --hr DIR"
        )
    found = {
        "gradient energy": scored(None, len(tiers)),
        "ClassSR's classifier": classifier(by_class),
        "PCSR's heavy pixels": heavy(by_pixel),
        "our scout": scored(scout, len(tiers)),
    }
    about = {
        "ClassSR's classifier": class_name,
        "PCSR's heavy pixels": pixel_name,
        "our scout": scout.weights[:12],
    }
    return found, about
