"""The training command: what it writes, what it refuses and with which words, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tierscale.jobs import train as command
from tierscale.jobs.cli.exits import Draining
from tierscale.models import registry
from tierscale.models.contract.checkpoints import read_checkpoint
from tierscale.models.contract.metrics import psnr
from tierscale.models.contract.upscaler import Placement
from tierscale.models.train import run as running
from tierscale.models.train.data.photos import read_watched

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]


def main(options: list[str]) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        command.main(options)
    return int(ended.value.code or 0)


def save(folder: Path, *seeds: int, height: int = 140, width: int = 140) -> Path:
    """Images of noise, each named after its seed."""
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        Image.fromarray(
            np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
        ).save(folder / f"{seed}.png")
    return folder


def line(folder: Path, *more: str, name: str = "fsrcnn-x4") -> list[str]:
    """A short run on folder/hr into folder/out."""
    short = ["--batch", "2", "--crop", "8", "--threads", "1", "--device", "cpu"]
    return [name, "--hr", str(folder / "hr"), *short, "--out", str(folder / "out"), *more]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two photos in hr/."""
    save(tmp_path / "hr", 0, 1)
    return tmp_path


@pytest.fixture
def trained(place: Path) -> Path:
    """The same after two steps."""
    assert main(line(place, "--steps", "2")) == 0
    return place


Said = pytest.CaptureFixture[str]


def refused(said: Said, options: list[str], code: int = 2) -> str:
    """What the command says on stderr: one sentence, with this exit code."""
    said.readouterr()
    assert main(options) == code
    message = said.readouterr().err
    assert message.startswith("tierscale: ")
    assert message.count("\n") == 1, message
    return message


def test_it_writes_weights_card_log_and_plot(trained: Path, capsys: Said) -> None:
    out = trained / "out"
    assert registry.load(f"file:{out / 'fsrcnn-x4.safetensors'}").scales == frozenset({Fraction(4)})
    assert sorted(files(out)) == [
        "fsrcnn-x4" + suffix for suffix in (".csv", ".json", ".png", ".pt", ".safetensors")
    ]
    card = json.loads((out / "fsrcnn-x4.json").read_text())
    assert (card["steps"], card["images"], card["schedule"]["bf16"]) == (2, 1, False)
    assert (out / "fsrcnn-x4.csv").read_text().startswith("step,seconds,loss,psnr\n2,")
    with Image.open(out / "fsrcnn-x4.png") as drawn:
        assert drawn.size == (960, 540)
    resume = ["--steps", "2", "--resume", str(out / "fsrcnn-x4.pt")]
    assert main(line(trained, *resume)) == 0
    assert "the run to resume has network 'fsrcnn', not 'carn'" in refused(
        capsys, line(trained, *resume, name="carn-x4")
    )


def test_an_earlier_run_is_replaced_only_when_asked(trained: Path, capsys: Said) -> None:
    before = files(trained / "out")
    message = refused(capsys, line(trained, "--steps", "3"))
    assert all(way in message for way in ("--resume", "--out", "--overwrite"))
    assert files(trained / "out") == before
    # A start that fails leaves the earlier log, too.
    save(trained / "hr", 2)
    (trained / "hr" / "2.png").write_bytes((trained / "hr" / "2.png").read_bytes()[:9000])
    assert "2.png cannot be decoded" in refused(
        capsys, line(trained, "--steps", "3", "--overwrite")
    )
    assert files(trained / "out") == before
    (trained / "hr" / "2.png").unlink()
    assert main(line(trained, "--steps", "3", "--overwrite")) == 0
    assert (trained / "out" / "fsrcnn-x4.csv").read_text().splitlines()[1].startswith("3,")


def test_a_run_that_diverges_stores_nothing(trained: Path, capsys: Said) -> None:
    before = files(trained / "out")
    message = refused(capsys, line(trained, "--steps", "3", "--rate", "1e9", "--overwrite"), 1)
    assert "diverged" in message
    assert "1e+09" in message
    assert files(trained / "out") == before


def test_a_finished_run_resumed_elsewhere_is_stored_there(trained: Path) -> None:
    out = trained / "out"
    assert (
        main(
            [
                *line(trained, "--steps", "2", "--resume", str(out / "fsrcnn-x4.pt")),
                "--out",
                str(trained / "b"),
            ]
        )
        == 0
    )
    first, again = (
        read_checkpoint(folder / "fsrcnn-x4.safetensors") for folder in (out, trained / "b")
    )
    assert again.spec == first.spec
    assert all(torch.equal(again.tensors[key], first.tensors[key]) for key in first.tensors)
    assert json.loads((trained / "b" / "fsrcnn-x4.json").read_text())["steps"] == 2


def test_a_run_resumed_elsewhere_begins_a_log(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(command, "Draining", StoppedSoon)
        assert main(line(place, "--steps", "5")) == 143
    assert (
        main(
            [
                *line(place, "--steps", "5", "--resume", str(place / "out" / "fsrcnn-x4.pt")),
                "--out",
                str(place / "b"),
            ]
        )
        == 0
    )
    rows = (place / "b" / "fsrcnn-x4.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss,psnr"
    assert [row.split(",")[0] for row in rows[1:]] == ["5"]
    assert (place / "b" / "fsrcnn-x4.png").is_file()
    # Where there is a log, it is gone on with.
    assert main(line(place, "--steps", "5", "--resume", str(place / "out" / "fsrcnn-x4.pt"))) == 0
    assert [
        row.split(",")[0] for row in (place / "out" / "fsrcnn-x4.csv").read_text().splitlines()
    ] == ["step", "2", "5"]


class Countdown(threading.Event):
    """Sends the process a SIGTERM when it is asked for the third time."""

    left = 3

    def is_set(self) -> bool:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().is_set()


class StoppedSoon(Draining):
    """Asked once before training, and once after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = Countdown()


def test_a_resumed_run_has_the_stage_and_the_photos_of_the_first(
    trained: Path, capsys: Said
) -> None:
    resume = ["--steps", "2", "--resume", str(trained / "out" / "fsrcnn-x4.pt")]
    save(trained / "w", 7)
    assert "has watched" in refused(capsys, line(trained, *resume, "--watch", str(trained / "w")))
    save(trained / "hr", 2)
    message = refused(capsys, line(trained, *resume))
    assert "has photos '2 images " in message
    assert "not '3 images " in message
    assert main(line(trained, "--steps", "1", name="pcsr-fsrcnn-x4")) == 0
    resume = ["--steps", "1", "--resume", str(trained / "out" / "pcsr-fsrcnn-x4.pt")]
    assert "has stage 'heaviest', not 'choice'" in refused(
        capsys, line(trained, *resume, "--stage", "choice", name="pcsr-fsrcnn-x4")
    )
    assert main(line(trained, *resume, "--stage", "heaviest", name="pcsr-fsrcnn-x4")) == 0


def test_what_is_no_checkpoint_cannot_be_resumed(trained: Path, capsys: Said) -> None:
    good = trained / "out" / "fsrcnn-x4.pt"
    (trained / "short.pt").write_bytes(good.read_bytes()[:20_000])
    (trained / "nothing.pt").write_bytes(b"")
    (trained / "text.pt").write_bytes(b"nothing")
    torch.save({"a": 1}, trained / "other.pt")
    torch.save(torch.zeros(3), trained / "tensor.pt")
    torch.save(torch.zeros(3), trained / "old.pt", _use_new_zipfile_serialization=False)
    state = torch.load(good, weights_only=True)
    del state["origin"]
    torch.save(state, trained / "before.pt")
    save_file({"a": torch.zeros(3)}, trained / "foreign.safetensors")
    wrong = [
        *trained.glob("*.pt"),
        trained / "foreign.safetensors",
        trained / "out" / "fsrcnn-x4.safetensors",
    ]
    assert len(wrong) == 9
    for path in wrong:
        assert f"{path} is not a checkpoint of a training run" in refused(
            capsys, line(trained, "--steps", "2", "--resume", str(path))
        )
    assert "lacks origin" in refused(
        capsys, line(trained, "--steps", "2", "--resume", str(trained / "before.pt"))
    )
    assert "there is no file" in refused(
        capsys, line(trained, "--steps", "2", "--resume", str(trained / "none.pt"))
    )


WRONG = {
    "--steps": ["-5", "0", "1.5", "many"],
    "--seconds": ["-1", "0", "nan", "inf"],
    "--batch": ["0", "-1"],
    "--crop": ["0", "-3"],
    "--threads": ["0"],
    "--every": ["nan", "-1"],
    "--seed": ["-1", str(2**70)],
    "--rate": ["nan", "0", "-1"],
    "--arguments": ["[1]", '{"foo": 1}', '{"features": "a"}', '{"features": -3}', "nojson"],
    "--loss": ["l2"],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in WRONG.items() for value in values]
)
def test_a_wrong_number_is_quoted_before_any_photo_is_looked_for(
    option: str, value: str, tmp_path: Path, capsys: Said
) -> None:
    message = refused(capsys, line(tmp_path, "--steps", "1", option, value))
    assert option in message
    assert value in message
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda" in refused(capsys, line(tmp_path, "--steps", "1", "--device", "cuda"))


def test_other_mistakes_are_sentences_too(place: Path, capsys: Said) -> None:
    def said(*more: str, name: str = "fsrcnn-x4") -> str:
        return refused(capsys, line(place, "--steps", "1", *more, name=name))

    assert "Missing option '--hr'" in refused(capsys, ["fsrcnn-x4"])
    assert "--nonsense" in said("--nonsense")
    assert "give --steps or --seconds" in refused(capsys, line(place))
    assert "which crops of 99 at scale 4 need" in said("--crop", "99")
    assert "no stage 'choice'" in said("--stage", "choice")
    assert "did you mean fsrcnn-x4" in said("--init", "fsrcn-x4")
    assert "leave --loss out" in said("--loss", "charbonnier", name="pcsr-fsrcnn-x4")
    assert "crops of 2 (" in said("--crop", "2", "--init", "carn-x4", name="classsr-carn-x4")
    save(place / "hr", 5, height=10)
    assert "5.png of 140x10 pixels is too small" in said("--watch", str(place / "hr"))
    (place / "hr" / "c.jpg").write_bytes(b"nothing")
    assert "c.jpg cannot be decoded" in said()


@pytest.mark.parametrize(
    ("name", "stage"),
    [("pcsr-fsrcnn-x4", "lighter"), ("pcsr-fsrcnn-x4", "choice"), ("classsr-carn-x4", "branches")],
)
def test_a_stage_that_trains_a_part_alone_wants_the_rest(
    name: str, stage: str, place: Path, capsys: Said
) -> None:
    assert "--init" in refused(capsys, line(place, "--steps", "1", "--stage", stage, name=name))


def test_a_warm_start_says_what_fitted(place: Path, capsys: Said) -> None:
    # As it stands, the text names a file, though what is before its = might be a part.
    own = place / "my=own.safetensors"
    shutil.copy(registry.locate("fsrcnn-x4"), own)
    zoo = read_checkpoint(own).tensors
    for source in ("fsrcnn-x4", str(own)):
        assert (
            main(line(place, "--steps", "1", "--overwrite", "--rate", "1e-12", "--init", source))
            == 0
        )
        assert f"from {source}: {len(zoo)} of {len(zoo)} tensors\n" in capsys.readouterr().out
        trained_tensors = read_checkpoint(place / "out" / "fsrcnn-x4.safetensors").tensors
        for key in zoo:
            torch.testing.assert_close(trained_tensors[key], zoo[key])
    assert json.loads((place / "out" / "fsrcnn-x4.json").read_text())["init"] == [
        "my=own.safetensors"
    ]
    assert (
        main(
            line(
                place,
                "--steps",
                "1",
                "--overwrite",
                "--init",
                "fsrcnn-x4",
                "--arguments",
                '{"mapping": 5}',
            )
        )
        == 0
    )
    assert (
        f"{len(zoo) - 1} of {len(zoo) + 2} tensors; not in it: map.4.bias"
        in capsys.readouterr().out
    )
    for init in ("carn-x4", "nopart=fsrcnn-x4"):
        assert f"nothing of --init {init} fits" in refused(
            capsys, line(place, "--steps", "1", "--overwrite", "--init", init)
        )


def test_the_psnr_of_watched_images_is_of_all_their_pixels(trained: Path, capsys: Said) -> None:
    pixels = np.random.default_rng(7).integers(0, 255, (480, 500, 3), np.uint8)
    pixels[110:370, 120:380] = 90  # the middle is easy
    (trained / "w").mkdir()
    Image.fromarray(pixels).save(trained / "w" / "7.png")
    capsys.readouterr()
    assert (
        main(
            line(
                trained, "--steps", "2", "--watch", str(trained / "w"), "--out", str(trained / "b")
            )
        )
        == 0
    )
    shown = float((trained / "b" / "fsrcnn-x4.csv").read_text().splitlines()[-1].split(",")[-1])
    (seen,) = read_watched(trained / "w", 4)
    network = registry.load(f"file:{trained / 'b' / 'fsrcnn-x4.safetensors'}")
    with torch.inference_mode():
        made = network(
            seen.lr[None], Placement.whole((seen.lr.shape[-2], seen.lr.shape[-1]), Fraction(4))
        )
    assert shown == pytest.approx(psnr(made.pixels[0], seen.hr / 255, 4), abs=0.01)


def test_watching_what_is_trained_on_is_said(place: Path, capsys: Said) -> None:
    save(place / "w", 7)
    shutil.copy(place / "hr" / "1.png", place / "w" / "other name.png")
    assert main(line(place, "--steps", "1", "--watch", str(place / "w"))) == 0
    assert (
        "1 of 2 watched images are trained on too, such as other name.png"
        in capsys.readouterr().err
    )
    (place / "hr" / "0.png").unlink()
    assert main(line(place, "--steps", "1", "--overwrite")) == 0
    assert capsys.readouterr().err == ""
    assert main(line(place, "--steps", "1", "--overwrite", "--crop", "30")) == 0
    assert "1 of 1 watched images are trained on too" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_to_is_found_first(
    place: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "read_photos", lambda *rest: pytest.fail("decoded"))
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", Path("/proc/x")):
        message = refused(capsys, [*line(place, "--steps", "1"), "--out", str(out)])
        assert f"cannot write to {out}" in message
        assert "checkpoint" not in message


def test_a_full_disk_leaves_the_last_good_checkpoint(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    before = files(trained / "out")
    synced = os.fsync
    calls = []

    def full(number: int) -> None:
        calls.append(number)
        # The first is the trial of --out, the second the log.
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        synced(number)

    monkeypatch.setattr(os, "fsync", full)
    message = refused(capsys, line(trained, "--steps", "3", "--overwrite"), 1)
    assert "No space left" in message
    assert f"--resume {trained / 'out' / 'fsrcnn-x4.pt'}" in message
    after = files(trained / "out")
    assert {**after, "fsrcnn-x4.csv": before["fsrcnn-x4.csv"]} == before
    calls.clear()
    message = refused(capsys, [*line(trained, "--steps", "3"), "--out", str(trained / "b")], 1)
    assert "checkpoint" not in message


def test_a_stopped_run_keeps_what_it_did_and_says_how_to_go_on(place: Path, capsys: Said) -> None:
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert main(line(place, "--steps", "100000")) == 143
    assert "--resume" in capsys.readouterr().err
    assert 0 < json.loads((place / "out" / "fsrcnn-x4.json").read_text())["steps"] < 100000


def test_help_names_networks_and_defaults(capsys: Said) -> None:
    assert main(["--help"]) == 0
    message = capsys.readouterr().out
    assert "pcsr-carn-x{2,3,4}" in message
    assert message.count("default:") >= 17
    examples = [row for row in message.splitlines() if "--init carn-x4" in row]
    assert len(examples) == 1
    assert "--rate 2e-4" in examples[0]
    assert "None" not in message


BLOCKED = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
sys.argv = {argv}
runpy.run_path("jobs/train.py", run_name="__main__")
"""
OTHERS = {
    "ray",
    "zarr",
    "obstore",
    "dask",
    "tifffile",
    "imagecodecs",
    "pyarrow",
    "fast_pytorch_kmeans",
    "psutil",
    "rich",
}


def test_it_runs_as_a_file_where_only_torch_numpy_safetensors_pillow_and_click_are_installed(
    place: Path,
) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        code = BLOCKED.format(
            names=OTHERS | {"skimage", "spandrel", "matplotlib"},
            argv=["jobs/train.py", *line(place, *more)],
        )
        return subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )

    made = run("--steps", "1")
    assert made.returncode == 0, made.stderr
    assert "install matplotlib" in made.stdout
    assert (place / "out" / "fsrcnn-x4.safetensors").is_file()
    made = run("--steps", "-1")
    assert (made.returncode, made.stderr) == (
        2,
        "tierscale: Invalid value for '--steps': '-1' is not a whole number above 0;"
        " see tierscale train --help\n",
    )
    cli = [sys.executable, "-m", "tierscale", "train", *line(place, "--steps", "-1")]
    through = subprocess.run(cli, cwd=ROOT, capture_output=True, text=True)
    assert (through.returncode, through.stderr) == (2, made.stderr)


def test_names_with_control_characters_do_nothing_to_a_terminal(place: Path, capsys: Said) -> None:
    assert main(["evil\x1b[2J-x4", *line(place, "--steps", "1")[1:]]) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "evil\\x1b[2J-x4" in said.err
    (place / "w\x1b[2J").mkdir()
    shutil.copy(place / "hr" / "1.png", place / "w\x1b[2J" / "a\x1b[31mb.png")
    assert main(line(place, "--steps", "1", "--watch", str(place / "w\x1b[2J"))) == 0
    said = capsys.readouterr()
    assert "such as a\\x1b[31mb.png" in said.err
    assert "\x1b" not in said.out + said.err


def test_json_and_debug_are_as_of_all_commands(place: Path, capsys: Said) -> None:
    assert main(line(place, "--steps", "1", "--json")) == 0
    said = capsys.readouterr()
    weights = str(place / "out" / "fsrcnn-x4.safetensors")
    assert json.loads(said.out)["output"] == weights
    assert "step 1 loss" in said.err
    assert main(line(place, "--steps", "1", "--json", "--debug")) == 2
    said = capsys.readouterr()
    assert "--overwrite" in json.loads(said.out)["refused"]
    assert said.err.startswith("Traceback")
