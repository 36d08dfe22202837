"""What can be read of a path, asked once."""

import builtins

from tierscale.pipeline.storage.paths import readable


def test_a_file_or_a_folder_can_be_read_if_it_gives_anything(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    assert readable(str(tmp_path / "full")) and readable(str(tmp_path / "full/a"))
    assert not readable(str(tmp_path / "empty")) and not readable(str(tmp_path / "none"))

    def fails(*arguments, **named):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(builtins, "open", fails)
    assert not readable(str(tmp_path / "full/a"))
