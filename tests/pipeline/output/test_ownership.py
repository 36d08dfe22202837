"""Whose an output is: what is not ours is refused, what a killed run began is begun again."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output import ownership, store
from tierscale.pipeline.output.levels import StoreLayout

LAYOUT = StoreLayout((3, 1500, 1100), np.dtype("u1"), "rgb", (512, 512))
LEVELS = len(LAYOUT.levels)
OURS = {"tierscale": {"plan": "ours"}}


@pytest.fixture
def path(tmp_path):
    store.create(str(tmp_path / "a.zarr"), LAYOUT, OURS)
    return str(tmp_path / "a.zarr")


class Killed(BaseException):
    """The process ends here."""


def kill_at(monkeypatch, owner, name, call):
    """The call of that number ends the process before it does anything."""
    done, real = iter(range(1, 1000)), getattr(owner, name)

    def act(*args, **keywords):
        if next(done) == call:
            raise Killed
        return real(*args, **keywords)

    monkeypatch.setattr(owner, name, act)


def test_an_output_matches_its_own_plan_only(path, tmp_path):
    assert ownership.matches_plan(path, "ours", len(LAYOUT.levels))
    assert not ownership.matches_plan(str(tmp_path / "none.zarr"), "ours", 1)
    with pytest.raises(Refused, match="was not written by the plan"):
        ownership.matches_plan(path, "another", 1)
    ownership.check_plan(path, "ours")
    with pytest.raises(Damaged, match="started again by another run"):
        ownership.check_plan(path, "another")


def test_what_is_not_ours_is_neither_replaced_nor_removed(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("dear")
    for touch in (ownership.check_ours, lambda path: ownership.remove(path, keep=())):
        with pytest.raises(Refused, match="not made by tierscale"):
            touch(str(folder))
    assert (folder / "a.jpg").read_text() == "dear"


@pytest.mark.parametrize("call", range(1, LEVELS + 2))
@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_an_output_whose_creation_was_killed_is_created_anew(tmp_path, monkeypatch, step, call):
    path = str(tmp_path / "a.zarr")
    with monkeypatch.context() as killed, pytest.raises(Killed):
        kill_at(killed, Path, step, call)
        store.create(path, LAYOUT, OURS)
    assert (tmp_path / "a.zarr").exists()
    ownership.check_ours(path)
    assert not ownership.matches_plan(path, "ours", LEVELS)
    store.create(path, LAYOUT, OURS)
    assert ownership.matches_plan(path, "ours", LEVELS)


@pytest.mark.parametrize("call", range(1, LEVELS + 2))
def test_an_output_whose_removal_was_killed_is_still_ours(path, monkeypatch, call):
    with monkeypatch.context() as killed, pytest.raises(Killed):
        kill_at(killed, shutil, "rmtree", call)
        store.create(path, LAYOUT, OURS)
    ownership.check_ours(path)
    ownership.matches_plan(path, "ours", LEVELS)


def test_a_file_beside_what_a_killed_run_left_is_not_touched(tmp_path, monkeypatch):
    path = str(tmp_path / "a.zarr")
    with monkeypatch.context() as killed, pytest.raises(Killed):
        kill_at(killed, Path, "replace", 1)
        store.create(path, LAYOUT, OURS)
    (tmp_path / "a.zarr/0/dear.txt").write_text("dear")
    with pytest.raises(Refused, match="was not written by the plan"):
        ownership.matches_plan(path, "ours", LEVELS)
    with pytest.raises(Refused, match="not made by tierscale"):
        ownership.check_ours(path)
