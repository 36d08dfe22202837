"""An image upscaled on threads, as tests of the run need it."""

from pathlib import Path
from typing import Any

from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool


def upscale(
    source: str | Path,
    output: str | Path,
    options: Options,
    controls: Controls | None = None,
    workers: int = 1,
    **more: Any,
) -> Summary:
    """Upscale a file on so many threads; more: fields of ImageJob."""
    job = ImageJob(str(source), str(output), options, **more)
    with LocalPool(workers) as pool:
        return upscale_image(job, pool, controls)


def plan_at(output: str | Path) -> Plan:
    """The plan of an output."""
    return Folder(str(output)).plan()
