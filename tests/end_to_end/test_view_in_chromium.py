"""The page of `tierscale view` in a real browser: it opens, zooms, swipes, and asks nobody else."""

import json
import os
import shutil
import subprocess
import time

import pytest

from tests.pipeline.view.scenes import scene, served
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.view import static

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *(
        "--remote-debugging-pipe",
        "--disable-background-networking",
        "--force-device-scale-factor=1",
    ),
    "--window-size=1000,700",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium"),
]


class Browser:
    """Chromium, told what to do by its DevTools protocol over two pipes.

    asked: addresses that pages asked for.
    """

    def __init__(self, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        line = ["bash", "-c", command, "-", BROWSER, *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            line,
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.number, self.session, self.asked = 0, None, []

    def call(self, method, **params):
        """What a method of the protocol answers."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params}
        if self.session:
            asked["sessionId"] = self.session
        self.writer.write(json.dumps(asked).encode() + b"\0")
        self.writer.flush()
        while (answer := self._next()).get("id") != self.number:
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        parts = []
        while (byte := self.reader.read(1)) != b"\0":
            assert byte, "the browser is gone"
            parts.append(byte)
        return json.loads(b"".join(parts))

    def open(self, address):
        """Load a page and wait until its picture is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        self.call("Network.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=address)
        self.settle()

    def value(self, expression):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self):
        """Wait until all tiles that are in sight are drawn, and nothing moves."""
        ready = """(() => {
          const viewer = typeof tierscale === "undefined" ? null : tierscale.viewer();
          if (!viewer || !viewer.isOpen()) return false;
          const [now, then] = [true, false].map((still) => viewer.viewport.getBounds(still));
          if (Math.abs(now.x - then.x) + Math.abs(now.width - then.width) > 1e-6) return false;
          const items = [...Array(viewer.world.getItemCount()).keys()].map((i) =>
            viewer.world.getItemAt(i));
          return items.length > 0
            && items.every((item) => item.getOpacity() === 0 || item.getFullyLoaded());
        })()"""
        until = time.monotonic() + 60
        while not self.value(ready):
            assert time.monotonic() < until, "the page does not come to rest"
            time.sleep(0.1)
        time.sleep(0.3)

    def pixel(self, x, y):
        """The colour at a place of the canvas."""
        spot = f"""(() => {{
          const canvas = document.querySelector('#view canvas');
          return [...canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3);
        }})()"""
        return self.value(spot)

    def place(self, x, y):
        """Where a pixel of the result lies on the canvas."""
        point = f"new OpenSeadragon.Point({x + 0.5}, {y + 0.5})"
        return self.value(
            "(({x, y}) => [Math.floor(x), Math.floor(y)])(tierscale.viewer().world.getItemAt(0)"
            f".imageToViewerElementCoordinates({point}))"
        )

    def key(self, key):
        """Press a key."""
        self.value(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(20)
        self.reader.close()
        self.writer.close()


@pytest.fixture
def browser(tmp_path):
    running = Browser(tmp_path / "profile")
    yield running
    running.close()


def test_the_page_in_a_browser(browser):
    shown = scene()
    with served(shown) as address:
        browser.open(address)
        assert browser.value("document.title").startswith("a <b>.zarr")
        assert "</script><b>" in browser.value("document.getElementById('facts').textContent")
        browser.value("tierscale.zoomTo(1)")
        browser.settle()
        assert browser.value("document.getElementById('zoom').textContent").startswith("100 %")
        check_swipe(browser, shown)
        check_tiers(browser)
        mine = address.split("/")[2]
        assert all(mine in one or one.startswith(("data:", "about:")) for one in browser.asked)
        assert sum("/tile/" in one for one in browser.asked) > 4
        browser.call("Page.navigate", url=f"http://{mine}/wrong/")
        assert browser.value("document.body.textContent").strip() == "not found"


def check_swipe(browser, shown):
    """Left of the line lies the source, right of it the result; with lossless tiles to the bit."""
    browser.key("p")
    browser.settle()
    source, result = (pixels(shown, layer) for layer in (1, 0))
    middle = shown.sizes[0][1] // 2
    # Amid squares of 4 by 4 equal pixels: the page's own grid need not be that of the screen.
    for x in (middle - 58, middle + 58):
        there = browser.place(x, 302)
        for part, expected in ((0.0, result), (1.0, source)):
            browser.value(f"tierscale.swipe({part})")
            browser.settle()
            assert browser.pixel(*there) == expected[302, x].tolist()
        browser.value("tierscale.swipe(0.5)")
        browser.settle()
        assert browser.pixel(*there) == (source if x < middle else result)[302, x].tolist()


def check_tiers(browser):
    """The tiers of the tiles lie over the picture when they are asked for."""
    spot = browser.place(102, 302)
    before = browser.pixel(*spot)
    browser.key("t")
    browser.settle()
    assert browser.pixel(*spot) != before
    assert "light: 6 of 12" in browser.value("document.getElementById('legend').textContent")
    browser.key("t")
    browser.settle()
    assert browser.pixel(*spot) == before


def test_the_page_in_a_folder(browser, tmp_path):
    static.write(scene(), str(tmp_path / "page"), lambda done, total: None)
    browser.open((tmp_path / "page/index.html").as_uri())
    browser.key("t")
    browser.settle()
    assert browser.value("tierscale.viewer().world.getItemCount()") == 3
    assert all(one.startswith(("file:", "data:", "about:")) for one in browser.asked)


def pixels(shown, layer):
    """All pixels of a layer in full resolution."""
    height, width = shown.sizes[0]
    return shown.layers[layer].layer.window(0, Rect(Span(0, height), Span(0, width)))
