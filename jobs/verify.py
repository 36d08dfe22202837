"""Compare outputs with their receipts: `tierscale verify`."""

import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from tierscale.jobs.cli.exits import Ended
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit, say
from tierscale.jobs.cli.types import ShareType
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.wording import counted

if TYPE_CHECKING:
    from tierscale.pipeline.run.workers.pool import Pool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", metavar="OUTPUT|FOLDER|LEDGER")
@click.option("--heal", is_flag=True, help="Make shards that differ from their receipts again.")
@click.option(
    "--sample",
    type=ShareType(),
    metavar="SHARE",
    help="Read only some of the shards, chosen by chance, such as 1% (default: all of them).",
)
@answering
def command(target: str, heal: bool, sample: float | None, as_json: bool, debug: bool) -> None:
    """Read shards back and compare them with their receipts.

    OUTPUT is one output, FOLDER stands for all outputs below it, and LEDGER (the file of a nightly)
    for all outputs that were finished by it. A shard without a receipt that can be used counts as
    different.
    """
    from tierscale.cluster.session import session
    from tierscale.pipeline.dataset.verification import outputs_at, verify_all
    from tierscale.pipeline.run.verify import Look, Sample

    if sample == 0:
        raise Refused("a sample of 0 reads nothing; leave --sample out, or give 1%")
    outputs = outputs_at(target)
    look = Look(heal)
    if sample is not None:
        look = Look(heal, Sample(sample, random.randrange(1 << 32)))
    with ExitStack() as sessions:
        pools: dict[str, Pool] = {}

        def pool_for(device: str) -> "Pool":
            if device not in pools:
                pools[device] = sessions.enter_context(session("none", "auto", device))
            return pools[device]

        found = verify_all(outputs, look, pool_for)
    for line in (*found.problems, *(f"note: {note}" for note in found.notes)):
        say(line)
    many = f"{counted(len(outputs.paths), 'output')}, " if outputs.paths != (target,) else ""
    text = f"{target}: {many}{counted(found.shards, 'shard')}, {len(found.problems)} wrong"
    text += f", {found.healed} healed" if heal else ""
    content = {
        "output": target,
        "outputs": len(outputs.paths),
        "shards": found.shards,
        "problems": list(found.problems),
        "healed": found.healed,
        "notes": list(found.notes),
        "status": "done" if found.good else "failed",
        "error": None if found.good else text,
    }
    emit(as_json, content, text)
    if not found.good:
        raise Ended(1)
