"""`tierscale train`: passes its arguments to jobs/train.py, which also runs without click."""

import click

from tierscale.jobs.cli.exits import Ended


@click.command("train", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train a network on photos of your own, from scratch or from the zoo's weights."""
    from tierscale.jobs import train as job

    raise Ended(job.main(arguments))
