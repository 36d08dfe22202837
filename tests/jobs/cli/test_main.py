"""The command itself: quick, without libraries until they are used, its commands complete."""

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest

from tests.conftest import ROOT
from tierscale.jobs.cli.main import COMMANDS, cli

HEAVY = {"torch", "ray", "dask", "zarr", "numpy", "pyarrow", "PIL", "tifffile", "rich"}
SCRIPT = """
import json, sys
from tierscale.jobs.cli.main import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as ended:
    code = ended.code
print(json.dumps([code or 0, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    "line",
    [
        ["--version"],
        ["--help"],
        *([name, "--help"] for name in ("upscale", "plan", "export", "models", "verify")),
    ],
    ids=" ".join,
)
def test_version_and_help_load_no_library(line):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(line)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0 and "click" in modules and not HEAVY & set(modules)


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tierscale", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout.startswith("tierscale, version")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_list_exists_and_has_help(name):
    entry = COMMANDS[name]
    command = getattr(import_module(entry.module), entry.name)
    assert isinstance(command, click.Command) and command.help
    assert len(entry.help) < 50 and entry.help.endswith(".")
    context = click.Context(cli, info_name="tierscale")
    assert cli.get_command(context, name) is command


def test_every_option_that_is_shown_has_a_help_text():
    def options(command, path):
        for param in command.params:
            yield f"{path} {param.name}", param
        for name, child in getattr(command, "commands", {}).items():
            yield from options(child, f"{path} {name}")

    context = click.Context(cli)
    bare = [
        path
        for name in COMMANDS
        for path, param in options(cli.get_command(context, name), name)
        if isinstance(param, click.Option) and not param.hidden and not param.help
    ]
    assert not bare


def test_an_unknown_command_is_refused():
    assert cli.get_command(click.Context(cli), "enlarge") is None
    with pytest.raises(click.UsageError, match="No such command 'enlarge'"):
        cli.main(["enlarge"], standalone_mode=False)
