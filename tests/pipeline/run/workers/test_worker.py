"""A worker keeps networks from task to task, and never takes one for another."""

from pathlib import Path

import pytest

from tests import replaced
from tests.plans import draft_of
from tests.replaced import check as check_replaced
from tierscale.models import registry
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.run.tiers import load_tiers
from tierscale.pipeline.run.workers import worker
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.worker import Worker

SCALE = draft_of().scale

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weights_that_were_replaced_make_the_next_image(tmp_path: Path) -> None:
    with LocalPool(2) as pool:
        check_replaced(pool, tmp_path)


def tiers_of(folder: Path) -> tuple[Tier, ...]:
    return load_tiers(("bicubic", f"file:{folder / 'mine.safetensors'}"), SCALE)


def test_a_network_stays_as_long_as_plans_name_its_weights(tmp_path: Path) -> None:
    """What an image was begun with makes all of it, whatever lies in the file by then."""
    one, plans = Worker("cpu"), []
    for seed in (1, 2):
        replaced.replace_weights(tmp_path, seed)
        plans.append(draft_of(tiers=tiers_of(tmp_path)))
        if seed == 1:
            first = one.engine(plans[0], (), {1}).upscalers[1]
    second = one.engine(plans[1], (), {1}).upscalers[1]
    assert second is not first and one.engine(plans[0], (), {1}).upscalers[1] is first
    with pytest.raises(Refused, match=r"the file was replaced since: put the earlier one back"):
        Worker("cpu").engine(plans[0], (), {1})


def test_a_run_whose_weights_were_replaced_fails_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned with the first weights, carried out by workers that find the second."""
    replaced.replace_weights(tmp_path, 1)
    earlier = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    real = registry.load_weights

    def late(
        name: str, device: str = "cpu", weights: str | None = None, bfloat16: bool = False
    ) -> registry.Loaded:
        if weights is not None and name.startswith("file:"):
            replaced.replace_weights(tmp_path, 2)
        return real(name, device, weights, bfloat16)

    monkeypatch.setattr(registry, "load_weights", late)
    with LocalPool(1) as pool, pytest.raises(Damaged, match="put the earlier one back"):
        replaced.image_of(pool, tmp_path, "late")
    monkeypatch.undo()
    for path, content in earlier.items():
        path.write_bytes(content)
    with LocalPool(1) as pool, LocalPool(1) as other:
        made = replaced.image_of(pool, tmp_path, "late")
        alone = replaced.image_of(other, tmp_path, "alone")
    assert (made.pixels == alone.pixels).all()


def test_a_worker_keeps_a_bounded_number_of_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "KEPT_NETWORKS", 1)
    one, draft = Worker("cpu"), draft_of(tiers=load_tiers(("bicubic", "fsrcnn-x4"), SCALE))
    engine = one.engine(draft, (), {0, 1})
    assert len(engine.upscalers) == 2 and len(one._upscalers) == 1
