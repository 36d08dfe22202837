"""Manifests read and write below their roots only, and no address shows its secrets."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.path_policy import (
    check_lasting,
    check_secrets,
    check_source,
    output_below,
    output_outside,
    printable,
    public,
)


@pytest.fixture
def tree(tmp_path):
    """out/leads_out is a link out of out, out/leads_in one to a folder inside it."""
    for name in ("out/sub", "elsewhere", "in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/leads_out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/leads_in").symlink_to(tmp_path / "out/sub")
    (tmp_path / "in/a.png").touch()
    (tmp_path / "in/near.png").symlink_to(tmp_path / "in/a.png")
    (tmp_path / "elsewhere/b.png").touch()
    (tmp_path / "in/link.png").symlink_to(tmp_path / "elsewhere/b.png")
    return tmp_path


@pytest.mark.parametrize("name", ["x.zarr", "sub/new/x.zarr", "leads_in/x.zarr", "..x.zarr"])
def test_an_output_below_its_root_is_returned_unchanged(tree, name):
    output = str(tree / "out" / name)
    assert output_below(output, str(tree / "out")) == output


@pytest.mark.parametrize(
    "name", ["../x.zarr", "sub/../x.zarr", "leads_out/x.zarr", ".", "a\0b.zarr", "../outside.zarr"]
)
def test_an_output_out_of_its_root_is_refused(tree, name):
    with pytest.raises(Refused, match=str(tree / "out")):
        output_below(f"{tree}/out/{name}", str(tree / "out"))


def test_an_output_in_a_bucket_stays_below_its_prefix():
    assert output_below("s3://bucket/out/x.zarr", "s3://bucket/out") == "s3://bucket/out/x.zarr"
    for escape in ("s3://bucket/outside/x.zarr", "s3://bucket/out/../x.zarr", "/local.zarr"):
        with pytest.raises(Refused):
            output_below(escape, "s3://bucket/out")


def test_an_output_lies_outside_the_archive(tree):
    output_outside(str(tree / "out"), str(tree / "in"))
    output_outside("s3://bucket/inner", "s3://bucket/in")
    (tree / "also_in").symlink_to(tree / "in")
    for output in (str(tree / "in"), str(tree / "in/out"), str(tree / "also_in")):
        with pytest.raises(Refused, match="lies inside the archive"):
            output_outside(output, str(tree / "in"))
    with pytest.raises(Refused, match="lies inside the archive"):
        output_outside("s3://bucket/in/out", "s3://bucket/in")


def test_sources_lie_below_one_of_their_roots(tree):
    roots = (str(tree / "in"), "s3://bucket/in")
    inside = (f"{tree}/in/a.png", f"{tree}/in/near.png", f"file://{tree}/in/a.png")
    for source in (*inside, "s3://bucket/in/a.zarr"):
        check_source(source, roots)
    escapes = (f"{tree}/in/link.png", f"{tree}/in/../elsewhere/b.png", f"{tree}/in")
    remote = ("s3://bucket/inner/a.zarr", "s3://b/a.zarr", "gs://bucket/in/a.zarr")
    for source in ("/etc/passwd", f"file://{tree}/elsewhere/b.png", *escapes, *remote):
        check_source(source, ())
        with pytest.raises(Refused, match=r"does not lie below .* --source-root"):
            check_source(source, roots)


@pytest.mark.parametrize("limited", [True, False])
def test_a_source_that_is_a_link_to_nothing_is_refused(tree, limited):
    os.unlink(tree / "elsewhere/b.png")
    with pytest.raises(Refused, match=r"is a link that leads nowhere \(to .*elsewhere/b.png\)"):
        check_source(str(tree / "in/link.png"), (str(tree / "in"),) if limited else ())


@pytest.mark.parametrize(
    "uri",
    ["s3://KEY:hidden@bucket/a", "https://host/a?sig=hidden", "a,http://user:hidden@host/a"],
)
def test_secrets_are_neither_shown_nor_taken(uri):
    assert "hidden" not in public(uri)
    with pytest.raises(Refused, match="holds a secret") as refused:
        check_secrets(uri)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("text", ["s3://bucket/a b?c.zarr", "/local/a@b", "edsr-x4@0.5"])
def test_what_holds_no_secret_is_shown_as_it_is(text):
    assert public(text) == text
    check_secrets(text)


@given(st.text())
def test_nothing_printable_moves_the_cursor(text):
    shown = printable(text)
    assert not any(unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs") for one in shown)
    assert printable(shown) == shown


def test_what_a_terminal_would_act_on_is_escaped():
    assert printable("a\nb\x1b[31m\u202e.tif") == r"a\nb\x1b[31m\u202e.tif"


def test_nothing_is_written_where_ray_deletes_it(tmp_path, monkeypatch):
    unpacked = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    (tmp_path / "stays").mkdir()
    monkeypatch.chdir(unpacked)
    for path in ("out", "./out/x.zarr", str(unpacked / "out"), f"file://{unpacked}/out"):
        with pytest.raises(Refused, match=f"--output {path} lies in .*; give an absolute") as error:
            check_lasting(path, "--output")
        assert str(unpacked) in str(error.value)
    for path in (str(tmp_path / "stays"), "../../../out", "s3://b/out", f"file://{tmp_path}/out"):
        check_lasting(path, "--output")
    monkeypatch.chdir(tmp_path)
    check_lasting("out", "--output")
