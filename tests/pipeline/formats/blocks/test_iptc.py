"""IPTC datasets are found alone and among Photoshop's resources, however these are cut."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.formats.blocks.iptc import iptc_of, resources

IPTC = b"\x1c\x02\x19\x00\x0cshelfmark 12"
OTHER = b"8BIM\x04\x25\x04name\0" + struct.pack(">I", 3) + b"abc\0"
BLOCK = b"Photoshop 3.0\0" + OTHER + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC


def test_datasets_are_found():
    assert iptc_of(IPTC) == iptc_of(BLOCK) == IPTC
    assert resources(BLOCK) == {0x0425: b"abc", 0x0404: IPTC}
    assert iptc_of(b"something else") is None and iptc_of(b"") is None and iptc_of(None) is None


@given(st.integers(0, len(BLOCK) - 1))
def test_a_block_that_is_cut_holds_what_is_whole_in_it(length):
    assert set(resources(BLOCK[:length])) <= {0x0425}
