"""docs/cli.md says what the commands say."""

import importlib.util

import pytest

from tests.conftest import ROOT
from tierscale.jobs.cli.exits import CODES
from tierscale.jobs.cli.main import COMMANDS


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs/generate_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator):
    assert generator.PAGE.read_text() == generator.page(), "run make docs"


def test_the_page_names_every_command_and_exit_code(generator):
    page = generator.page()
    assert all(f"## `tierscale {name}`" in page for name in COMMANDS)
    table = [line for line in page.splitlines() if line.startswith("| ")]
    codes = {code.strip() for line in table[1:] for code in line.split("|")[1].split(",")}
    assert codes == {"0", "1", "2", "75", *map(str, CODES.values())}


def test_hidden_options_are_not_on_the_page(generator):
    page = generator.page()
    assert "--lose" not in page and "dearest|" not in page
    assert all(len(line) <= 120 for line in page.splitlines() if not line.startswith("|"))
