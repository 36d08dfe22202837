"""A probe tells how far results lie apart, on the pixels that a shard would have."""

import numpy as np
import pytest

from tests.plans import EIGHT_BITS, draft_of
from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.inference.enlarge import Device, Engine
from tierscale.pipeline.inference.probe import probe
from tierscale.pipeline.run.tiers import load_tiers

NAMES = ("bicubic", "fsrcnn-x4")


@pytest.mark.parametrize("colour", ["rgb", "channels"])
def test_a_probe_is_the_difference_of_whole_images_on_its_tile(colour):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 100, 90), np.uint8)
    draft = draft_of((100, 90), tiers=load_tiers(NAMES, draft_of().scale), colour=colour)
    upscalers = {index: registry.load(name) for index, name in enumerate(NAMES)}
    engine = Engine(draft, upscalers, ({}, {}), Device())

    def read(y0, y1, x0, x1):
        return pixels[:, y0:y1, x0:x1]

    found = probe(engine, EIGHT_BITS, read, 4)  # row 1, column 1 of 4 by 3

    import torch

    unit = torch.from_numpy(pixels / np.float32(255))
    whole = []
    for upscaler in upscalers.values():
        planes = [unit] if colour == "rgb" else [plane.expand(3, -1, -1) for plane in unit]
        made = [
            upscaler(plane[None].contiguous(), Placement.whole((100, 90), draft.scale)).pixels[0]
            for plane in planes
        ]
        merged = made[0] if colour == "rgb" else torch.stack([one.mean(dim=0) for one in made])
        whole.append(merged.detach().clamp(0, 1)[:, 128:256, 128:256])
    assert found[0] == pytest.approx(float((whole[0] - whole[1]).square().mean()), rel=1e-4)
    assert found[1] == 0
