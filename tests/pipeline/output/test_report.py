"""The page beside an output says what was done, and holds no markup of strangers."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.output.pictures.tile_maps import TileMap
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.report import report, tier_rows

TILES = TileMap(("bicubic", "edsr-x4"), np.array([[0, 1, 1], [0, 0, 1]]), (60, 90), 32)
COSTS = np.stack([np.array([[1.0, 50, 60], [2, 1, 70]]), np.full((2, 3), 250.0)])
SUMMARY = {
    "audit": {"loss_db": 0.031, "low": 0.02, "high": 0.04, "tiles": 64},
    "output": "/data/a.zarr",
    "plan": "0123456789abcdef",
    "shape": [3, 240, 360],
    "dtype": "uint8",
    "scale": "4",
    "fidelity": {"worst_db": 46.21, "y": 64, "x": 128},
    "cost_share": 0.423,
    "seconds": {"score": 0.5, "enlarge": 3.0, "total": 4.0},
    "shards": {"total": 6},
    "notes": ["memory ran out"],
}
VOID = {"meta", "img", "link", "br", "hr"}


class Checker(HTMLParser):
    """Collects the text of a page, and fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag in ("li", "td", "th", "tr") and self.open[-1] != tag:
            raise AssertionError(f"</{tag}> closes <{self.open[-1]}>")
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def checked(html):
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker, re.sub(r"\s+", " ", checker.text)


def test_tiers_have_the_colours_of_the_map_and_what_they_cost():
    light, full = tier_rows(TILES, COSTS)
    assert (light.tiles, light.cost, light.seconds) == (3, 4.0, 0.75)
    assert (full.tiles, full.cost, full.seconds) == (3, 180.0, 0.75)
    assert [int(light.colour[i : i + 2], 16) for i in (0, 2, 4)] == TILES.tints[0].tolist()


def test_the_page_says_what_was_done():
    page, text = checked(report("a.zarr", TILES, COSTS, SUMMARY))
    for part in (
        "360 × 240 pixels, 3 channels of uint8, enlarged ×4",
        "42.3 % of the cost of the full tier",
        "6 tiles in 6 shards",
        "0.031 dB below the full tier on every tile (0.020 to 0.040, measured on 64 tiles)",
        "edsr-x4",
        "97.8 %",
        "4.0 s from start to end",
        "46.2 dB in the tile that differs most from its source when it is shrunk again, at 128, 64",
        "memory ran out",
        "tierscale explain /data/a.zarr",
    ):
        assert part in text, part
    assert page.tags.count("svg") == 2 * 2 + 2 and page.tags.count("img") == 2
    assert "<" not in text and "dearest" not in text


def test_an_output_of_one_tier_without_notes():
    alone = TileMap(("bicubic",), np.zeros((1, 1), int), (9, 9), 32)
    summary = {**SUMMARY, "cost_share": None, "notes": [], "shape": [1, 36, 36],
               "shards": {"total": 1}, "fidelity": None, "audit": None}  # fmt: skip
    _, text = checked(report("a.zarr", alone, np.zeros((2, 1, 1)), summary))
    assert "1 channel of" in text and "1 tile in 1 shard" in text and "Notes" not in text
    assert "dB" not in text


def test_names_and_notes_cannot_write_markup_or_move_the_cursor():
    name = '<script>alert(1)</script><img src=x onerror="x">\x1b[2J\u202e.zarr'
    tiles = TileMap((f"file:{name}", "b"), TILES.routes, TILES.size, TILES.tile)
    summary = {**SUMMARY, "output": name, "notes": [name]}
    html = report(name, tiles, COSTS, summary)
    page, text = checked(html)
    assert "script" not in page.tags and page.tags.count("img") == 2
    assert "\x1b" not in html and "\u202e" not in html and "\\x1b[2J" in text


def test_what_lies_beside_a_finished_output(output):
    folder = Folder(str(output)).path
    names = {file.name for file in folder.iterdir()}
    assert names >= {"plan.json", "tiles.parquet", "receipts", "preview.png", "routing.png",
                     "report.html", "summary.json", "facts.json"}  # fmt: skip
    assert not names & {"source.zarr", "lease.json", "scores.parquet"}
    with Image.open(folder / "preview.png") as preview:
        assert preview.size == (800, 600)
    _, text = checked((folder / "report.html").read_text())
    assert "coffee.zarr" in text and "35 tiles in 2 shards" in text


@pytest.mark.parametrize("key", ["shape", "seconds", "shards"])
def test_a_page_that_lacks_a_value_is_not_written(key):
    summary = {name: value for name, value in SUMMARY.items() if name != key}
    with pytest.raises(Exception, match=key):
        report("a.zarr", TILES, COSTS, summary)
