"""Weights that are replaced while a pool lives: what each image is then made with.

    python -m tests.replaced FOLDER

does it on an embedded Ray of two workers; tests of plain pools call images_of() themselves.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from PIL import Image

from tierscale.models import registry
from tierscale.models.contract.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool, Pool


class Made(NamedTuple):
    """An output and its plan."""

    pixels: np.ndarray
    plan: Plan


def replace_weights(folder: Path, seed: int) -> None:
    """Put other weights where the earlier ones are."""
    checkpoint = read_checkpoint(registry.locate("fsrcnn-x4"))
    tensors = {
        name: tensor + 0.1 * seed if name == "enlarge.bias" else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    path = folder / "mine.safetensors"
    write_checkpoint(path, Checkpoint(checkpoint.spec, tensors))


def image_of(pool: Pool, folder: Path, name: str) -> Made:
    """The picture of the folder, enlarged with what lies there now."""
    source, output = folder / "a.png", f"{folder / name}.zarr"
    if not source.exists():
        pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(source)
    tiers = ("bicubic", f"file:{folder / 'mine.safetensors'}")
    options = Options(tiers=tiers, policy="adaptive", tile=16)
    upscale_image(ImageJob(str(source), output, options), pool)
    plan = Folder(output).plan()
    return Made(zarr.open_array(f"{output}/0", mode="r")[:], plan)


def check(pool: Pool, folder: Path) -> None:
    """On one pool, each image is made with what its plan names: what a new pool makes of it."""
    made = []
    for seed in (1, 2):
        replace_weights(folder, seed)
        one = image_of(pool, folder, f"one{seed}")
        with LocalPool(1) as fresh:
            alone = image_of(fresh, folder, f"alone{seed}")
        network = registry.digest(f"file:{folder / 'mine.safetensors'}")
        assert one.plan.tiers[1].weights == network and one.plan.digest == alone.plan.digest
        np.testing.assert_array_equal(one.pixels, alone.pixels)
        made.append(one)
    first, second = made
    assert not np.array_equal(first.pixels, second.pixels), "the test needs weights that differ"


def main() -> None:
    """Check it on Ray."""
    from tierscale.cluster.session import session

    with session("local", "together", "cpu", 2) as pool:
        check(pool, Path(sys.argv[1]))
    print("each image was made with what its plan names")


if __name__ == "__main__":
    main()
