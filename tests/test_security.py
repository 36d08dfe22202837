"""What a stranger's manifest, image, name or address cannot do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tierscale.jobs.manifest_run import ManifestJob, run_manifest
from tierscale.models import registry as models
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options

ROOT = Path(__file__).resolve().parent.parent
SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "command",
    [
        "upscale a.png o.zarr --tiers bicubic,{uri}",
        "upscale a.png o.zarr --tiers {uri},bicubic",
        "plan a.png o.zarr --tiers bicubic,{uri}",
        "evaluate --hr . --tiers bicubic,{uri}",
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
    places = ["--archive", tree / "in", "--output", tree / "made", "--ledger", tree / "l.db"]
    options = ["--until", "06:00", "--tiers", "bicubic", "--ray", "none", "--json", "--debug"]
    command = [sys.executable, "-m", "tierscale", "nightly", *places, *options]
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
    found = run_manifest(
        Manifest((row,), root=tree / "in"),
        ManifestJob(Options(tiers=("bicubic",)), str(tree / "out"), ray="none", quiet=True),
    )
    output = found.to_pylist()[0]["output"]
    page = (Folder(output).path / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_a_pipe_holds_nothing_up(tree):
    os.mkfifo(tree / "in/endless.tif")
    with pytest.raises(Refused, match="not a regular file"):
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
