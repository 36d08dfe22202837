"""What an archive's budget reads of an image: its content is digested once in all."""

from collections import Counter

from tests.pipeline.dataset.test_sharing import job_of, refuse
from tierscale.pipeline.dataset import sharing
from tierscale.pipeline.formats import fingerprint
from tierscale.pipeline.run import draft, inspect
from tierscale.pipeline.run.job import Controls
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers import prescan_tasks, worker
from tierscale.pipeline.run.workers.pool import LocalPool

# Whatever opens images when they share a budget and are then enlarged.
OPENERS = (draft, inspect, worker, prescan_tasks, sharing)


def counting(monkeypatch, owner, name):
    """How often a function of a module is called, by its first argument."""
    calls, real = Counter(), getattr(owner, name)

    def counted(*arguments, **more):
        calls[str(arguments[0])] += 1
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_a_png_is_opened_and_ingested_once_to_be_scored_and_once_to_be_enlarged(
    tmp_path, monkeypatch
):
    """The copy between is not kept, or an archive would lie on the disk twice."""
    jobs = [job_of(tmp_path, name) for name in ("a.png", "other.png")]
    opened = [counting(monkeypatch, module, "open_image") for module in OPENERS]
    digested = counting(monkeypatch, fingerprint, "content_digest")
    with LocalPool(1) as pool:
        routes = sharing.shared_routes(list(enumerate(jobs)), pool, Controls(), refuse)
        for number, job in enumerate(jobs):
            upscale_image(job, pool, Controls(routes=routes[number]))
    sources = {job.source for job in jobs}
    total = sum(opened, Counter())
    assert {uri: total[uri] for uri in sources} == dict.fromkeys(sources, 4)
    assert digested == dict.fromkeys(sources, 1)
