"""Kinds of pictures in words and as JSON."""

import pytest

from tierscale.models.contract.kind import Kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind(0.1, 0.4, None), "no damage to speak of"),
        (Kind(0.2, 7.2, 55), "grain of about 7 levels, JPEG about 55"),
        (Kind(1.24, 0.3, None), "blur of about 1.2 pixels"),
    ],
)
def test_a_kind_in_words(kind, words):
    assert str(kind) == words


def test_a_kind_comes_back_from_json():
    stored = Kind(0.256, 7.24, None).to_json()
    assert stored == {"blur": 0.26, "grain": 7.2, "jpeg_quality": None}
    assert Kind(**stored).to_json() == stored
