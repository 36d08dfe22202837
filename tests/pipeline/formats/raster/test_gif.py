"""GIF, whose frames may each announce another size."""

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection


def test_a_gif_is_refused_by_what_a_frame_announces_before_it_is_opened(tmp_path, monkeypatch):
    frames = [Image.fromarray(np.full((9, 7), value, np.uint8)) for value in (0, 90, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=2)
    with open_image(tmp_path / "a.gif") as source:
        assert source.shape[1:] == (9, 7)
    content = bytearray((tmp_path / "a.gif").read_bytes())
    last = content.rindex(b"\x2c\0\0\0\0\x07\0\x09\0")
    content[last + 5 : last + 9] = (
        b"\xff" * 4
    )  # its third frame alone would be a background of 4 GiB
    (tmp_path / "large.gif").write_bytes(content)
    with open_image(tmp_path / "large.gif", Selection(series=1), max_bytes=1 << 30) as source:
        assert source.shape[1:] == (9, 7), "frames behind the selected one are not looked at"
    # An empty extension, behind which Pillow reads one block too many and finds another frame than
    # the file has.
    (tmp_path / "hidden.gif").write_bytes(
        content[:6] + b"\1\0\1\0\0\0\0" + b"\x21\xf9\0" + b"\x2c" + b"\0" * 4 + b"\1\0\1\0\0\2\0;"
    )
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("opened"))
    with pytest.raises(Refused, match=r"large\.gif.*--max-memory 34358689800 "):
        open_image(tmp_path / "large.gif", Selection(series=2), max_bytes=1 << 30)
    with pytest.raises(Damaged, match=r"hidden\.gif.*empty"):
        open_image(tmp_path / "hidden.gif")
