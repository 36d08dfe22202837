"""Names, addresses and messages from outside reach the terminal escaped, and make no line."""

import ast
import json
import logging
import os
import pty
import shutil
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from tests.commands import FAST, tierscale
from tests.conftest import ROOT
from tierscale.jobs.cli import terminal
from tierscale.models import catalogue, registry

# Colours the terminal, rings, clears the screen, and begins a line that looks like ours.
EVIL = "a\x1b[31m\x07\x9b2J\ntierscale: done\u202e\x7f"
FILES = sorted(path for room in ("jobs", "cluster") for path in (ROOT / room).rglob("*.py"))


def raw(text):
    """Characters in a text that do something to a terminal, line ends apart."""
    return [
        one for one in text if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")
    ]


def check(result, code=0):
    got, out, err = result
    assert got == code, err
    assert "x1b" in out + err, "the name is not shown at all"
    assert not raw(out + err)
    assert not [line for line in (out + err).splitlines() if line.startswith("tierscale: done")]
    return out


@pytest.fixture
def folder(tmp_path):
    """A folder with such a name, and a photograph of such a name in it."""
    path = tmp_path / EVIL
    path.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (300, 320, 3), np.uint8)
    Image.fromarray(pixels).save(path / f"{EVIL}.png")
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_printed_but_by_the_terminal(path):
    """`write`, and `write_json`, whose JSON is escaped already."""
    if path == ROOT / "jobs/cli/terminal.py":
        return
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    names = {ast.unparse(call) for call in calls}
    forbidden = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
    assert not names & (forbidden | {"traceback.print_exc", "rich.print"})


def test_lines_are_escaped_and_stay_lines(capsys):
    terminal.write([EVIL, "second"])
    terminal.say(EVIL)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and len(err.splitlines()) == 1 and not raw(out + err)


def test_json_is_escaped_and_stays_json(capsys):
    terminal.write_json({"name": EVIL})
    out = capsys.readouterr().out
    assert not raw(out) and json.loads(out) == {"name": EVIL}


def test_upscale_plan_explain_and_verify(capsys, folder):
    source, output = folder / f"{EVIL}.png", folder / f"{EVIL}.zarr"
    check(tierscale(capsys, "plan", source, output, *FAST))
    check(tierscale(capsys, "upscale", source, output, *FAST))
    for command in ("explain", "verify", "status"):
        check(tierscale(capsys, command, output))
    check(tierscale(capsys, "export", output, folder / f"{EVIL}.tif"))
    check(tierscale(capsys, "upscale", folder / f"{EVIL}.jpg", output, *FAST), 2)


def test_evaluate(capsys, folder):
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / f"small {EVIL}.png")
    check(tierscale(capsys, "evaluate", "--hr", folder, "--tiers", "bicubic"), 1)


def test_models(capsys, folder, monkeypatch):
    listing = [{**catalogue.listing()[0], "name": EVIL}]
    monkeypatch.setattr(catalogue, "listing", lambda: listing)
    check(tierscale(capsys, "models"))
    weights = registry.locate("fsrcnn-x4")
    lost = folder / f"{EVIL}.pth"
    shutil.copy(weights, lost)
    target = folder / "x.safetensors"
    check(tierscale(capsys, "models", "convert", lost, "--method", "fsrcnn", "-o", target), 2)


def test_train(capsys, folder, one_thread):
    line = ("train", "fsrcnn-x4", "--hr", folder, "--out", folder / EVIL, "--threads", 1)
    limits = ("--steps", 1, "--batch", 1, "--crop", 8)
    check(tierscale(capsys, *line, *limits))
    check(tierscale(capsys, *line, *limits), 2)


def test_a_traceback_and_a_log_line_are_escaped_too(capsys, folder):
    missing = folder / f"{EVIL}.jpg"
    result = tierscale(capsys, "upscale", missing, folder / "o.zarr", *FAST, "--debug")
    assert result[0] == 2 and "Traceback" in result[2] and not raw(result[2])
    logging.getLogger("tierscale.cluster.pool").warning("lost %s", EVIL)
    err = capsys.readouterr().err
    assert "lost" in err and not raw(err) and len(err.splitlines()) == 1


def test_warnings_of_libraries_are_shown_with_debug_only(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        terminal.take_logs(debug=False)
        warnings.warn(EVIL, UserWarning, stacklevel=1)
        assert capsys.readouterr().err == ""
        terminal.take_logs(debug=True)
        warnings.warn(EVIL, UserWarning, stacklevel=1)
        err = capsys.readouterr().err
        assert "UserWarning" in err and not raw(err) and len(err.splitlines()) == 1


def test_a_refusal_for_memory_is_one_line_on_a_terminal_too(folder, tmp_path):
    """A progress bar that was begun leaves lines of its own, even if it shows nothing."""
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "a.png")
    main, side = pty.openpty()
    command = [sys.executable, "-m", "tierscale", "upscale", str(tmp_path / "a.png")]
    options = [str(tmp_path / "o.zarr"), *FAST, "--max-memory", "50M"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, stdin=side, stdout=side, stderr=side, timeout=120
    )
    os.close(side)
    shown = b""
    try:
        while piece := os.read(main, 1 << 16):
            shown += piece
    except OSError:  # how a closed pseudo-terminal ends
        pass
    os.close(main)
    assert done.returncode == 2
    (line,) = shown.decode().replace("\r\n", "\n").splitlines()
    assert line.startswith("tierscale: ") and "but only 50.0 MiB may be used" in line
