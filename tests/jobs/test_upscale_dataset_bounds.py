"""What a stranger's manifest cannot do: write or read elsewhere, or spread a secret."""

import json

import pytest

from tierscale.jobs.manifest_run import ManifestJob, image_jobs, run_manifest
from tierscale.jobs.upscale_dataset import main
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.storage.path_policy import check_secrets, check_source, output_below, public

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "output",
    [
        "../x.zarr",
        "sub/../../x.zarr",
        "sub/../x.zarr",
        "/etc/x.zarr",
        "leads_out/x.zarr",
        "s3://other/x.zarr",
        "file:///etc/x.zarr",
        "http://a/x.zarr",
        ".",
        "a\0b.zarr",
        "{out}/../elsewhere/x.zarr",
        "{out}x.zarr",
    ],
)
def test_outputs_never_leave_their_root(tree, output):
    row = Row(str(tree / "in/a.png"), output.replace("{out}", str(tree / "out")))
    found = run_manifest(
        Manifest((row,)),
        ManifestJob(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True),
    ).to_pylist()
    assert found[0]["status"] == "failed" and str(tree / "out") in found[0]["error"], found
    assert not list((tree / "elsewhere").iterdir()) and {path.name for path in tree.iterdir()} == {
        "out",
        "elsewhere",
        "in",
    }


def test_outputs_inside_their_root_are_taken(tree):
    for output in (
        "x.zarr",
        "sub/new/x.zarr",
        "leads_in/x.zarr",
        str(tree / "out/x.zarr"),
        "..x.zarr",
    ):
        manifest = Manifest((Row("a.png", output),))
        jobs, refused = image_jobs(manifest, ManifestJob(output_root=str(tree / "out")))
        assert len(jobs) == 1 and not refused
    assert output_below("s3://bucket/out/x.zarr", "s3://bucket/out") == "s3://bucket/out/x.zarr"
    for escape in ("s3://bucket/outside/x.zarr", "s3://bucket/out/../x.zarr", "/local.zarr"):
        with pytest.raises(Refused):
            output_below(escape, "s3://bucket/out")


def test_a_manifest_without_a_root_stays_in_the_folder_of_the_command(tree, capsys, monkeypatch):
    (tree / "m.jsonl").write_text(
        json.dumps({"source": str(tree / "in/a.png"), "output": str(tree / "elsewhere/x.zarr")})
    )
    monkeypatch.chdir(tree / "in")
    with pytest.raises(SystemExit) as ended:
        main(["--manifest", str(tree / "m.jsonl"), "--ray", "none", "--tiers", "bicubic"])
    assert (
        ended.value.code == 1
        and "row 1: the output" in capsys.readouterr().err
        and not list((tree / "elsewhere").iterdir())
    )


def test_sources_can_be_limited_to_roots(tree):
    (tree / "elsewhere/b.png").touch()
    (tree / "in/link.png").symlink_to(tree / "elsewhere/b.png")
    (tree / "in/near.png").symlink_to(tree / "in/a.png")
    roots = (str(tree / "in"), "s3://bucket/in")
    for source in (
        str(tree / "in/a.png"),
        str(tree / "in/near.png"),
        f"file://{tree}/in/a.png",
        "s3://bucket/in/a.zarr",
    ):
        check_source(source, roots)
        check_source(source, ())
    for source in (
        "/etc/passwd",
        str(tree / "in/link.png"),
        str(tree / "in/../elsewhere/b.png"),
        "s3://bucket/inner/a.zarr",
        "s3://b/a.zarr",
        str(tree / "in"),
        f"file://{tree}/elsewhere/b.png",
        "gs://bucket/in/a.zarr",
    ):
        with pytest.raises(Refused, match=r"does not lie below .* --source-root"):
            check_source(source, roots)
    (tree / "elsewhere/b.png").unlink()
    for limits in (roots, ()):
        with pytest.raises(Refused, match=r"is a link that leads nowhere \(to .*elsewhere/b.png\)"):
            check_source(str(tree / "in/link.png"), limits)
    row, job = (
        Row(str(tree / "in/a.png")),
        ManifestJob(output_root=str(tree / "out"), source_roots=(f"file://{tree}/in/",)),
    )
    jobs, _ = image_jobs(Manifest((row,)), job)
    assert len(jobs) == 1, "a root may be written as the address that it is"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/a.zarr",
        f"https://host/a.zarr?sig={SECRET}",
        f"http://user:{SECRET}@host/a.zarr",
    ],
)
def test_secrets_in_addresses_are_refused_and_not_repeated(tree, uri):
    with pytest.raises(Refused) as error:
        check_secrets(uri)
    assert (
        SECRET not in str(error.value)
        and "through the environment" in str(error.value)
        and SECRET not in public(uri)
    )
    with pytest.raises(Refused) as error:
        open_image(uri)
    assert SECRET not in str(error.value)
    job = ManifestJob(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True)
    for row in (Row(uri), Row(str(tree / "in/a.png"), uri)):
        assert SECRET not in str(run_manifest(Manifest((row,)), job).to_pylist())
    assert (
        public("s3://bucket/a b?c.zarr") == "s3://bucket/a b?c.zarr"
        and public("/local/a@b") == "/local/a@b"
    )
