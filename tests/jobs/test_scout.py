"""The scout command: what it fits and writes, which scout a plan takes, and what is refused."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.commands import tierscale
from tierscale.jobs import scout as scouting
from tierscale.models import registry
from tierscale.models.contract.checkpoints import digest_file, read_checkpoint, write_checkpoint
from tierscale.models.contract.upscaler import Placement
from tierscale.models.scout import Scout, write_scout
from tierscale.models.train.data.photos import read_image
from tierscale.models.train.data.shrink import shrink

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")


pytestmark = pytest.mark.usefixtures("one_thread")


def fresh(tiers: tuple[str, ...] = TIERS) -> Scout:
    torch.manual_seed(0)
    return (
        Scout(tiers, [registry.digest(tier) for tier in tiers], Fraction(4))
        .eval()
        .requires_grad_(False)
    )


def photos(folder: Path, size: tuple[int, int] = (448, 432)) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(3):
        noise = rng.integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scouts that are fitted here lie, empty."""
    monkeypatch.setenv("TIERSCALE_SCOUTS", str(tmp_path / "scouts"))
    return tmp_path / "scouts"


QUICK = ("--steps", 3, "--variants", 1, "--threads", 1)


def test_a_scout_is_fitted_to_any_tiers_and_found_by_their_weights(tmp_path, own, capsys):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(registry.locate("fsrcnn-x4"), copy)
    line = (
        "scout",
        "fit",
        "--tiers",
        f"bicubic,file:{copy}",
        "--scale",
        4,
        "--hr",
        photos(tmp_path / "photos"),
        *QUICK,
        "--json",
    )
    code, out, err = tierscale(capsys, *line)
    assert code == 0, err
    summary = json.loads(out)
    assert (
        summary["tiers"] == ["bicubic", f"file:{copy}"]
        and summary["seconds_per_million_pixels"] >= 0
    )
    table = pq.read_table(Path(summary["output"]).with_suffix(".errors.parquet"))
    assert (
        table.column_names == ["image", "variation", "y", "x", "tile", "mse"] and table.num_rows > 0
    )
    assert set(table["variation"].to_pylist()) == {0, 1}
    found = registry.load_scout(("bicubic", "fsrcnn-x4"), Fraction(4))
    assert found is not None and found.weights == digest_file(Path(summary["output"])), (
        "the same weights are known by any name"
    )


def fitting_line(folder: Path, out: Path) -> tuple[object, ...]:
    return ("scout", "fit", "--tiers", "bicubic,fsrcnn-x4", "--hr", folder, *QUICK, "--out", out)


def test_errors_in_the_table_are_those_of_the_tiles(tmp_path, own, capsys):
    code, out, err = tierscale(
        capsys, *fitting_line(photos(tmp_path / "photos"), tmp_path / "a.safetensors")
    )
    assert code == 0 and f"--scout {tmp_path / 'a.safetensors'}" in out, err
    row = next(
        row
        for row in pq.read_table(tmp_path / "a.errors.parquet").to_pylist()
        if row["image"] == "1.png" and not row["variation"]
    )
    hr = read_image(tmp_path / "photos" / "1.png") / 255
    lr, side = shrink(hr, 4).clamp(0, 1), row["tile"]
    for name, error in zip(("bicubic", "fsrcnn-x4"), row["mse"], strict=True):
        made = (
            registry.load(name)(lr[None], Placement.whole((108, 112), Fraction(4)))
            .pixels[0]
            .clamp(0, 1)
        )
        apart = (made - hr).square()[
            :, 4 * row["y"] : 4 * (row["y"] + side), 4 * row["x"] : 4 * (row["x"] + side)
        ]
        assert error == pytest.approx(apart.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--tiers", "bicubic"), ("nothing to choose",)),
        (("--tiers", "carn-x4,bicubic"), ("light to full",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--scale", "5/2"), ("fsrcnn-x4", "5/2")),
        (("--tiers", "bicubic,fsrcnn-x4", "--out", "a.pt"), (".safetensors",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--hr", "{empty}"), ("no image files",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--observe", "nan"), ("'--observe': 'nan'",)),
        (("--tiers", "bicubic,fsrcnn-x4", "--seconds", "-1"), ("'--seconds': '-1'",)),
    ],
)
def test_scouts_that_cannot_be_fitted(tmp_path, own, capsys, line, words):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = tierscale(
        capsys, "scout", "fit", "--hr", empty, *(str(part).format(empty=empty) for part in line)
    )
    assert code == 2 and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


def test_too_few_photos_to_judge_by_are_said_to_be_too_few(tmp_path, own, capsys):
    file = tmp_path / "few.safetensors"
    code, out, err = tierscale(
        capsys, *fitting_line(photos(tmp_path / "photos", (200, 210)), file), "--json"
    )
    assert code == 0 and json.loads(out)["captured"] is None, err
    lines = scouting.report(file, json.loads(file.with_suffix(".json").read_text()))
    assert "too few photos" in "".join(lines)


def test_a_scout_of_these_tiers_alone_comes_before_one_that_knows_others_too(own):
    own.mkdir()
    tiers = ("bicubic", "fsrcnn-x4", "edsr-x4")
    shipped = registry.load_scout(tiers, Fraction(4))
    write_scout(own / "scout-x4-more.safetensors", fresh((*tiers, "carn-x4")))
    assert registry.load_scout(tiers, Fraction(4)).weights == shipped.weights
    write_scout(own / "scout-x4-own.safetensors", fresh(tiers))
    assert registry.load_scout(tiers, Fraction(4)).weights == digest_file(
        own / "scout-x4-own.safetensors"
    )


def test_a_given_scout_must_belong_to_the_tiers(tmp_path, own, capsys):
    image, file, other = tmp_path / "a.png", tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(image)
    write_scout(file, fresh(("bicubic", "fsrcnn-x4")))
    write_scout(
        other, Scout(("bicubic", "fsrcnn-x4"), [registry.digest("bicubic"), "0" * 64], Fraction(4))
    )
    options = ("--ray", "none", "--tile", 16, "--json")
    line = ("plan", image, tmp_path / "out.zarr", *options, "--tiers")
    code, out, _ = tierscale(capsys, *line, "bicubic,fsrcnn-x4", "--scout", file)
    assert code == 0 and json.loads(out)["curve"]
    for tiers, scout, word in (
        ("bicubic,carn-x4", file, "carn-x4: it was fitted for bicubic, fsrcnn-x4"),
        ("bicubic,fsrcnn-x4", other, "fsrcnn-x4: it was fitted with other weights"),
        ("bicubic,fsrcnn-x4", tmp_path / "none.safetensors", "none.safetensors"),
    ):
        code, _, err = tierscale(capsys, *line, tiers, "--scout", scout)
        assert code == 2 and word in err


def test_where_no_scout_is_known_plain_detail_serves_and_it_is_said(tmp_path, own, capsys):
    image, copy = tmp_path / "a.png", tmp_path / "copy.safetensors"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(image)
    write_checkpoint(copy, read_checkpoint(registry.locate("fsrcnn-x4")))
    assert registry.digest(f"file:{copy}") != registry.digest("fsrcnn-x4")
    options = ("--ray", "none", "--tile", 16, "--json")
    line = ("plan", image, tmp_path / "out.zarr", *options, "--tiers", f"bicubic,file:{copy}")
    code, out, _ = tierscale(capsys, *line, "--budget", "0.6")
    assert (
        code == 0
        and "plain detail" in json.loads(out)["notes"][0]
        and json.loads(out)["curve"] is None
    )
    code, _, err = tierscale(capsys, *line, "--max-loss", "0.1")
    assert code == 2 and "tierscale scout fit" in err
