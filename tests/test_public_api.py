"""What a user may rely on: `import tierscale`, from a checkout and from an installed wheel."""

import inspect
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tierscale
from tests.conftest import ROOT
from tierscale.jobs.upscale_dataset import command
from tierscale.models.weights import SUMS, shipped

HEAVY = ("torch", "ray", "dask", "zarr", "matplotlib", "numpy", "pyarrow")


def run_python(arguments: list[str], folder: Path, *path: Path) -> str:
    """What a Python process prints that finds packages in `path` and is at work in `folder`."""
    environment = {
        "PYTHONPATH": ":".join(map(str, path)),
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing_heavy(tmp_path):
    code = f"import sys, tierscale; print([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(["-c", code], tmp_path, ROOT).strip() == "[]"


def test_every_public_name_is_there_documented_and_in_the_page():
    for name in tierscale.__all__:
        value = getattr(tierscale, name)
        assert name == "__version__" or value.__doc__, name
        assert name in (tierscale.__doc__ or ""), name
    assert set(tierscale.__all__) <= set(dir(tierscale))
    with pytest.raises(AttributeError, match="no attribute 'luck'"):
        _ = tierscale.luck


def test_a_dataset_is_enlarged_by_plain_keywords(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(tmp_path / "in" / name)
    manifest = tierscale.Manifest.scan(tmp_path / "in", "*.png")
    out, options = tmp_path / "out", tierscale.Options(scale=2, tiers="bicubic")
    how = {"output_root": out, "ray": "none", "workers": 1, "max_memory": 8 << 30, "quiet": True}
    rows = tierscale.upscale_dataset(manifest, options, **how).to_pylist()
    assert [(row["status"], row["height"]) for row in rows] == [("done", 48), ("done", 48)]
    assert sorted(path.name for path in out.iterdir() if path.suffix == ".zarr") == [
        "a.png.zarr",
        "b.png.zarr",
    ]
    (again, _) = tierscale.upscale_dataset(manifest, options, **how).to_pylist()
    assert again["status"] == "skipped"
    rows = tierscale.upscale_dataset(
        manifest, options, source_roots=[tmp_path / "elsewhere"], **how
    ).to_pylist()
    assert {row["status"] for row in rows} == {"failed"} and "elsewhere" in rows[0]["error"]


def test_the_keywords_of_a_dataset_are_the_options_of_its_command():
    parameters = inspect.signature(tierscale.upscale_dataset).parameters
    keywords = {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
    flags = {flag for param in command.params for flag in param.opts}
    names = {"source_roots": "--source-root"}
    for name in keywords - {"quiet"}:
        assert names.get(name, "--" + name.replace("_", "-")) in flags
        assert f"{name}: " in (tierscale.upscale_dataset.__doc__ or "")


@pytest.mark.slow
def test_the_python_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks, "the README shows the Python API"
    (tmp_path / "archive").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "archive/a.tif")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"pixels": pixels}
    for block in blocks:
        assert all(
            line.split()[1].split(".")[0] == "tierscale"
            for line in block.splitlines()
            if line.startswith(("import ", "from "))
        ), "the README imports the public API alone"
        exec(block.replace("out/", f"{tmp_path}/out/"), names)
    assert names["large"].shape == (120, 160, 3)  # type: ignore[attr-defined]
    assert names["table"].to_pylist()[0]["status"] == "done"  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run(
        [*build, "-w", str(folder), str(ROOT)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_tierscale_alone(installed):
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"tierscale"}
    zoo = installed / "tierscale/models/zoo"
    assert all((zoo / name).is_file() for name in (*shipped(), SUMS))
    assert (installed / "tierscale/pipeline/output/report.html").is_file()
    assert (installed / "tierscale/py.typed").is_file()
    assert not list(installed.rglob("__pycache__"))


def test_the_wheel_is_enough_for_a_dataset(installed, tmp_path):
    """In all three ways, from a folder that holds nothing of the project."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    quick = ["--tiers", "bicubic", "--ray", "none", "--json"]

    def run(*command: str) -> dict[str, object]:
        """The JSON that a command of the installed package prints."""
        return json.loads(run_python(["-m", *command], tmp_path, installed))

    assert run("tierscale", "manifest", "in", "-o", "m.csv", "--json")["images"] == 1
    found = run("tierscale", "dataset", "m.csv", "--output-root", "one", *quick)
    assert found["done"] == 1
    module = "tierscale.jobs.upscale_dataset"
    found = run(module, "--manifest", "m.csv", "--output-root", "two", *quick)
    assert found["done"] == 1 and found["results"] == str(tmp_path / "two/results.parquet")


def test_the_wheel_works_in_a_project_with_folders_of_the_same_names(installed, tmp_path):
    for name in ("models", "pipeline", "jobs", "cluster", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    code = """
import numpy, tierscale
import tierscale.cluster.session, tierscale.jobs.cli.main, tierscale.jobs.nightly
assert "site" in tierscale.__file__, tierscale.__file__
pixels = numpy.zeros((20, 24, 3), numpy.uint8)
print(tierscale.upscale_array(pixels, 4, axes="yxc", tiers="bicubic").shape)
"""
    assert run_python(["-c", code], tmp_path, installed).strip() == "(80, 96, 3)"
