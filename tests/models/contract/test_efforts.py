"""Tables of efforts: their laws, and the files that version 0.1 wrote."""

import json
from pathlib import Path

import pytest

from tierscale.models.contract.efforts import Efforts, read_efforts, table_path, write_efforts

TABLE = Efforts("k", (5.0, 0.0, -5.0), (0.2, 0.5, 1.0), "ab", {"photos": "train"})


def test_a_table_on_disk_is_that_of_version_0_1(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_efforts(path, TABLE)
    assert json.loads(table_path(path).read_text()) == {
        "knob": "k",
        "settings": [5.0, 0.0, -5.0],
        "shares": [0.2, 0.5, 1.0],
        "weights": "ab",
        "measured": {"photos": "train"},
    }
    assert read_efforts(path, "ab") == TABLE
    with pytest.raises(ValueError, match="other weights"):
        read_efforts(path, "cd")
    assert read_efforts(tmp_path / "b.safetensors", "ab") is None


@pytest.mark.parametrize(
    "text", ["", "[1]", "3", "{}", '{"knob": "k", "settings": 3, "shares": 1}']
)
def test_a_damaged_table_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    table_path(path).write_text(text)
    with pytest.raises(ValueError, match=r"a\.efforts\.json is not a table of efforts"):
        read_efforts(path, "ab")


def test_settings_lie_on_lines_between_those_measured() -> None:
    assert TABLE.setting(0.35) == pytest.approx(2.5)
    assert TABLE.setting(0.1) == TABLE.setting(TABLE.floor) == 5.0
    assert (TABLE.cost_fraction(0.1), TABLE.cost_fraction(0.7)) == (0.2, 0.7)
    with pytest.raises(ValueError, match=r"effort of 1.5 is not a share"):
        TABLE.setting(1.5)
    with pytest.raises(ValueError, match="rising shares"):
        Efforts("k", (1.0, 0.0), (0.5, 0.5), "", {})
