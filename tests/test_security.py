"""What a stranger's manifest, image, name or address cannot do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_nightly import archive, night, numbers  # noqa: F401
from tierscale.jobs.upscale_dataset import JobOptions, _requests, upscale_dataset
from tierscale.models import registry as models
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.storage.path_policy import check_secrets, public

ROOT = Path(__file__).resolve().parent.parent
SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def tree(tmp_path):
    for name in ("out/sub", "elsewhere", "in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/leads_out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/leads_in").symlink_to(tmp_path / "out/sub")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in/a.png")
    return tmp_path


@pytest.mark.parametrize(
    "output", ["../x.zarr", "sub/../../x.zarr", "sub/../x.zarr", "/etc/x.zarr", "leads_out/x.zarr", "s3://other/x.zarr", "file:///etc/x.zarr",
               "http://a/x.zarr", ".", "a\0b.zarr", "{out}/../elsewhere/x.zarr", "{out}x.zarr"]
)  # fmt: skip
def test_outputs_never_leave_their_root(tree, output):
    row = Row(str(tree / "in/a.png"), output.replace("{out}", str(tree / "out")))
    found = upscale_dataset(
        Manifest((row,)),
        JobOptions(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True),
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
        results = {}
        requests = _requests(
            Manifest((Row("a.png", output),)), JobOptions(output_root=str(tree / "out")), results
        )
        assert len(requests) == 1 and not results


def test_a_manifest_without_a_root_stays_in_the_folder_of_the_command(tree, capsys, monkeypatch):
    from tierscale.jobs.upscale_dataset import main

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


def test_a_root_of_sources_may_be_written_as_an_address(tree):
    row = Row(str(tree / "in/a.png"))
    job = JobOptions(output_root=str(tree / "out"), source_roots=(f"file://{tree}/in/",))
    assert len(_requests(Manifest((row,)), job, {})) == 1


def test_a_link_out_of_the_archive_is_followed_only_if_allowed(archive):  # noqa: F811
    (archive / "elsewhere").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(archive / "elsewhere/b.png")
    (archive / "archive/linked.png").symlink_to(archive / "elsewhere/b.png")
    assert numbers(night(archive)) == {"new": 3, "done": 2, "failed": 1}
    assert numbers(night(archive, 1, source_roots=(str(archive / "elsewhere"),))) == {
        "untouched": 3,
        "done": 1,
    }


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
    job = JobOptions(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True)
    for row in (Row(uri), Row(str(tree / "in/a.png"), uri)):
        assert SECRET not in str(upscale_dataset(Manifest((row,)), job).to_pylist())


@pytest.mark.parametrize(
    "command",
    [
        "upscale a.png o.zarr --tiers bicubic,{uri}",
        "upscale a.png o.zarr --tiers {uri},bicubic",
        "upscale a.png o.zarr --scout {uri}",
        "plan a.png o.zarr --tiers bicubic,{uri}",
        "evaluate --hr . --tiers bicubic,{uri}",
        "scout fit --hr . --tiers bicubic,{uri}",
        "models calibrate {uri} --hr .",
        "nightly --archive . --output ../o --ledger l.db --until 06:00 --tiers bicubic,{uri}",
        "nightly --archive . --output ../o --ledger {uri} --until 06:00",
    ],
)
def test_secrets_in_options_are_not_repeated(tree, command, capsys, monkeypatch):
    from tierscale.jobs.cli.main import main

    monkeypatch.chdir(tree / "in")
    where = ["--ray", "none"] if command.split()[0] in ("upscale", "plan", "nightly") else []
    for uri in (f"file:https://u:{SECRET}@h/x", f"s3://AKIA:x,{SECRET}@b/x"):
        with pytest.raises(SystemExit) as ended:
            main([*command.format(uri=uri).split(), *where, "--json"])
        out, err = capsys.readouterr()
        assert (
            ended.value.code == 2 and "through the environment" in err and SECRET not in out + err
        )


def test_secrets_of_the_environment_reach_no_file(tree, capfd):
    environment = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "RAY_AUTH_TOKEN": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
    }
    command = [sys.executable, "-m", "tierscale", "nightly", "--archive", tree / "in", "--output", tree / "made", "--ledger", tree / "l.db",
               "--until", "06:00", "--tiers", "bicubic", "--ray", "none", "--json", "--debug"]  # fmt: skip
    (tree / "in/broken.tif").write_bytes(b"II*\0")
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert len(files) > 8 and SECRET not in done.stdout + done.stderr
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_names_are_escaped_in_reports(tree):
    name = "<script>alert(1)<img src=x onerror=alert(2)>&.png"
    (tree / "in/a.png").rename(tree / "in" / name)
    row = Row(str(tree / "in" / name))
    found = upscale_dataset(
        Manifest((row,), root=tree / "in"),
        JobOptions(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True),
    )
    output = found.to_pylist()[0]["output"]
    page = (Folder(output).path / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_a_pipe_holds_nothing_up(tree):
    os.mkfifo(tree / "in/endless.tif")
    with pytest.raises(Refused, match="no regular file"):
        open_image(tree / "in/endless.tif")


def test_weights_are_safetensors_only(tmp_path):
    """A pickle runs what it likes as it is loaded."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went_off",))

    (tmp_path / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises((ValueError, FileNotFoundError)):
        models.load(f"file:{tmp_path / 'weights.safetensors'}")
    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises((Refused, Damaged)), open_image(tmp_path / "a.npy") as image:
        image.read(0, 1, 0, 1)
    assert not (tmp_path / "went_off").exists()
    sources = [
        path.read_text()
        for folder in ("models", "pipeline", "cluster", "jobs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert not [text for text in sources if "pickle.load" in text]
    assert all(
        "weights_only=True" in line
        for text in sources
        for line in text.splitlines()
        if "torch.load(" in line
    )
