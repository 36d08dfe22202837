"""Nights for tests: a small archive, its options, and what a night says."""

from datetime import datetime

import pytest
import skimage.data
from PIL import Image

from tierscale.jobs.cli.main import main
from tierscale.jobs.night_run import NightlyOptions, nightly
from tierscale.pipeline.plan.options import Options

EVENING = datetime(2026, 11, 21, 22, 0).timestamp()
DAY = 86400.0
STARS = skimage.data.hubble_deep_field()


def picture(path, side, at=0):
    Image.fromarray(STARS[at : at + side, :side]).save(path)


def options(root, **more):
    overrides = {
        "until": "06:00",
        "image": Options(tiers=("bicubic",), tile=32),
        "ray": "none",
        "workers": 1,
        "quiet": True,
        **more,
    }
    places = {
        name: overrides.pop(name, default)
        for name, default in (("archive", "archive"), ("output", "out"), ("ledger", "ledger.db"))
    }
    return NightlyOptions(
        **{name: path if "://" in path else str(root / path) for name, path in places.items()},
        **overrides,
    )


def night(root, number=0, **more):
    """The summary of a night; number: nights after the first."""
    return nightly(options(root, **more), clock=lambda: EVENING + number * DAY)


def numbers(found):
    return {
        name: found[name]
        for name in ("new", "changed", "untouched", "gone", "done", "failed", "parked", "left")
        if found[name]
    }


def stamps(root):
    return {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def line(root):
    places = ("--archive", root / "archive", "--output", root / "out")
    options = ("--until", "06:00", "--ray", "none", "--tiers", "bicubic", "--json")
    return ("nightly", *places, "--ledger", root / "ledger.db", *options)
