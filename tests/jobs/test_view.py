"""`tierscale view`: what is shown of outputs and of sources, and what cannot be."""

import json
import re
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.commands import check_refusal, tierscale
from tierscale.jobs import view
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Rect, Span


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def enlarged(capsys, photo, *options):
    output = photo.with_name("out.zarr")
    line = ("upscale", photo, output, "--ray", "none", "--tiers", "bicubic,fsrcnn-x4", *options)
    code, _, err = tierscale(capsys, *line, "--tile", "32", "--policy", "light")
    assert code == 0, err
    return output


def pixels(scene, layer, rect):
    return scene.layers[layer].layer.window(0, rect).astype(int)


def test_an_output_is_shown_beside_its_source(capsys, photo):
    shown = view.scene_of(str(enlarged(capsys, photo)))
    assert [named.name for named in shown.layers] == ["result", "bicubic", "source pixels"]
    assert shown.sizes[0] == (240, 360) and shown.scale == 4
    assert shown.tiers is not None and shown.tiers.tiles.routes.shape == (2, 3)
    assert shown.row(1)["tiers"] == [0, 0, 0]
    rect = Rect(Span(100, 140), Span(200, 260))
    # The result is bicubic everywhere; Pillow's kernel is the same.
    assert np.abs(pixels(shown, 0, rect) - pixels(shown, 1, rect)).max() <= 1
    source = np.asarray(Image.open(photo)).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(pixels(shown, 2, rect), source[100:140, 200:260])


def test_a_region_lies_on_its_part_of_the_source(capsys, photo):
    shown = view.scene_of(str(enlarged(capsys, photo, "--region", "20,10,40,30")))
    rect = Rect(Span(8, 100), Span(8, 120))
    assert np.abs(pixels(shown, 0, rect) - pixels(shown, 1, rect)).max() <= 1


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_source_that_is_not_the_same_any_more_is_not_shown(capsys, photo, change):
    output = enlarged(capsys, photo)
    photo.unlink() if change == "gone" else Image.new("RGB", (90, 60)).save(photo)
    shown = view.scene_of(str(output))
    assert [named.name for named in shown.layers] == ["result"]
    assert any(name == "source" and "not shown" in text for name, text in shown.facts)


def test_a_source_alone_is_shown_beside_its_bicubic_enlargement(photo):
    shown = view.scene_of(str(photo))
    assert [named.name for named in shown.layers] == ["bicubic", "source pixels"]
    assert shown.sizes[0] == (240, 360) and shown.tiers is None


def test_what_is_neither_is_refused(capsys, tmp_path):
    check_refusal(tierscale(capsys, "view", tmp_path / "none.zarr"), 2, "none.zarr")
    (tmp_path / "a.txt").write_text("text")
    check_refusal(tierscale(capsys, "view", tmp_path / "a.txt"), 2, "a.txt")


def test_a_source_that_does_not_fit_is_refused(photo, monkeypatch):
    monkeypatch.setattr(view, "HELD_BYTES", 60 * 90 * 3 - 1)
    with pytest.raises(Refused, match="tierscale ingest makes a copy"):
        view.scene_of(str(photo))


def test_a_folder_with_the_page(capsys, photo, tmp_path):
    output = enlarged(capsys, photo)
    code, out, _ = tierscale(capsys, "view", output, "--static", tmp_path / "page", "--json")
    assert code == 0 and json.loads(out)["bytes"] > 100_000
    assert (tmp_path / "page/tile/1/0/0_0.jpg").is_file()
    again = tierscale(capsys, "view", output, "--static", tmp_path / "page")
    check_refusal(again, 2, "is there already")


def test_one_line_tells_the_address_and_ctrl_c_ends_it(capsys, photo):
    line = [sys.executable, "-m", "tierscale", "view", str(photo), "--no-browser"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        address = run.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[A-Za-z0-9_-]{16,}/", address)
        with urllib.request.urlopen(address) as page:
            assert b"openseadragon" in page.read()
        run.send_signal(2)
        assert run.wait(20) == 0 and run.stdout.read() == "" and run.stderr.read() == ""
