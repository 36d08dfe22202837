"""The page in a folder is the page that is served."""

from pathlib import Path

import pytest

from tests.pipeline.view.scenes import scene
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.view import static
from tierscale.pipeline.view.server import content


@pytest.mark.parametrize("alpha", [False, True])
def test_a_folder_holds_all_that_the_page_loads(tmp_path, alpha):
    shown, steps = scene(alpha=alpha), []
    static.write(shown, str(tmp_path / "page"), lambda done, total: steps.append((done, total)))
    files = {str(file.relative_to(tmp_path / "page")) for file in Path(tmp_path).rglob("*.*")}
    assert files == {"index.html", *static.names(shown)} and len(files) == len(steps)
    suffix = "png" if alpha else "jpg"
    assert {f"tile/{layer}/0/1_1.{suffix}" for layer in (0, 1)} <= files
    for name in ("info.js", "row/2.js", f"tile/1/0/0_0.{suffix}"):
        assert (tmp_path / "page" / name).read_bytes() == content(shown, name)[1]


def test_a_page_without_tiers_has_no_map(tmp_path):
    assert "tiers.png" not in set(static.names(scene(tiers=None)))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(Refused, match="there is no folder"):
        static.write(scene(), str(tmp_path / "none" / "page"), lambda done, total: None)
