"""What the documents show exists: links, files, commands and their options."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tierscale.jobs.cli.main import cli

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Pages that tell users what to type. Old names have their place in the history and the decisions.
GUIDES = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "decisions"]
TOPS = ("benchmarks", "cluster", "docs", "jobs", "models", "pipeline", "tests")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FILE = re.compile(rf"(?:{'|'.join(TOPS)})/[\w./*-]*")
OLD = re.compile(
    r"\b(?:dearest|cheapest)\b|--lose\b|--policy quality"
    r"|(?:from|import) (?:pipeline|models|jobs|cluster)\b|python -m (?:jobs|pipeline|models)\b"
)
LONGEST = 120


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fenced(text: str) -> Iterator[str]:
    """The lines inside code blocks, with continued lines joined."""
    inside, held = False, ""
    for line in text.splitlines():
        if line.strip().startswith("```"):
            inside = not inside
        elif inside and line.endswith("\\"):
            held += line.strip()[:-1] + " "
        elif inside:
            yield held + line.strip()
            held = ""


def commands(text: str) -> Iterator[list[str]]:
    """The commands of ours in code blocks and inline code, in words."""
    for line in [*fenced(text), *CODE.findall(text)]:
        found = re.search(r"(?:^|\s)(tierscale [a-z]|python (?:-m tierscale|jobs/))", line)
        if found:
            yield shlex.split(line[found.start(1) :].replace("…", ""), comments=True)


def click_command(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """The click command that the words call, and the words after its name.

    None: a module that reads its arguments otherwise; it exists.
    """
    if words[0] == "tierscale":
        return cli, words[1:]
    module = words[2] if words[1] == "-m" else "tierscale." + words[1][:-3].replace("/", ".")
    rest = words[3:] if words[1] == "-m" else words[2:]
    if module == "tierscale":
        return cli, rest
    found = getattr(importlib.import_module(module), "command", None)
    return (found if isinstance(found, click.Command) else None), rest


def problem(words: list[str]) -> str | None:
    """What of a command does not exist; None: nothing."""
    command, rest = click_command(words)
    if command is None:
        return None
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(click.Context(command), rest[0])
        if inner is None:
            return f"there is no command {rest[0]!r} in {command.name}"
        command, rest = inner, rest[1:]
    known = {"--help", "--version"}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            known |= {*parameter.opts, *parameter.secondary_opts}
    options = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)} - {"-m"}
    return f"{command.name} has no {sorted(options - known)}" if options - known else None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    missing = [one for one in targets if not (page.parent / one.split("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    named = [code for code in CODE.findall(page.read_text()) if FILE.fullmatch(code)]
    missing = [one for one in named if not list(ROOT.glob(one.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_commands_and_options_that_are_shown_exist(page):
    found = [(words, problem(words)) for words in commands(page.read_text())]
    assert not [(shlex.join(words), text) for words, text in found if text]


def test_the_readme_shows_commands_that_the_check_sees():
    shown = {words[1] for words in commands((ROOT / "README.md").read_text())}
    assert {"upscale", "plan", "verify", "nightly", "jobs/upscale_dataset.py"} <= shown


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("tierscale upscale a.tif b.zarr --budget 0.3", None),
        ("tierscale upscale a.tif b.zarr --lose 0.02", "--lose"),
        ("tierscale enlarge a.tif", "no command 'enlarge'"),
        ("tierscale models convert a.pth --network carn", "--network"),
        ("python jobs/nightly.py --archive a --output b --ledger c --until 06:00", None),
        ("python -m tierscale plan a.tif b.zarr --curves x", "--curves"),
    ],
)
def test_the_check_of_commands_tells_right_from_wrong(line, fault):
    (words,) = commands(f"```\nX=1 {line}   # why\n```")
    found = problem(words)
    assert found is None if fault is None else found and fault in found


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_no_old_name_is_shown(page):
    assert not OLD.findall(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_have_at_most_120_characters(page):
    long = [
        number
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > LONGEST
        and not line.startswith("|")
        and max(map(len, line.split())) < LONGEST - 20
    ]
    assert not long, f"lines {long} of {name(page)}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
