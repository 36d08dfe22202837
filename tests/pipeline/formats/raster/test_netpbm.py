"""Formats whose pixels lie in the file as they are."""

import numpy as np
import pytest

from tests.pipeline.formats.pictures import check
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.registry import open_image


@pytest.mark.parametrize(("top", "bits"), [(255, None), (4095, 12), (65535, None)])
def test_pnm_values_stay_as_they_are(tmp_path, top, bits):
    for samples in (1, 3):
        pixels = (
            np.random.default_rng(0)
            .integers(0, top + 1, (11, 13, samples))
            .astype(np.uint8 if top == 255 else np.uint16)
        )
        head = f"P{5 if samples == 1 else 6}\n# made here\n13 11\n{top}\n".encode()
        (tmp_path / "a.pnm").write_bytes(
            head + pixels.astype(">u2" if top > 255 else "u1").tobytes()
        )
        check(tmp_path / "a.pnm", pixels.transpose(2, 0, 1), bits=bits, random_access=True)
    (tmp_path / "a.pnm").write_bytes(head + b"\0" * 10)
    with pytest.raises(Damaged, match="cut short"):
        open_image(tmp_path / "a.pnm")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4", ">f8"])
@pytest.mark.parametrize("axes", ["yx", "yxc", "cyx"])
def test_npy_of_any_order_comes_back(tmp_path, order, dtype, axes):
    shape = {"yx": (20, 30), "yxc": (20, 30, 3), "cyx": (3, 20, 30)}[axes]
    array = np.asarray(np.random.default_rng(0).integers(0, 200, shape), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    expected = array[None] if axes == "yx" else array.transpose(2, 0, 1) if axes == "yxc" else array
    expected_dtype = {"f": np.float32, "u": np.dtype(dtype).newbyteorder("=")}[np.dtype(dtype).kind]
    check(
        tmp_path / "a.npy",
        expected.astype(expected_dtype),
        colour="grey" if axes == "yx" else "rgb",
        random_access=True,
    )
