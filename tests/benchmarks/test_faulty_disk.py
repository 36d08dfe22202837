"""The faults that `make chaos` injects: of disks where none may be mounted, of cards everywhere."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTY = Path(__file__).parents[2] / "benchmarks/chaos/faulty"
WRITE = """
import os, sys
for path in sys.argv[1:]:
    try:
        with open(path + ".new", "wb") as file:
            file.write(bytes(100))
        os.replace(path + ".new", path)
        print("written")
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.parametrize(
    "instruction, wanted",
    [("1000", "written"), ("40", str(errno.ENOSPC)), ("ro", str(errno.EROFS))],
)
def test_a_disk_takes_what_it_is_told_to_and_other_folders_take_all(tmp_path, instruction, wanted):
    disk, beside = tmp_path / "disk", tmp_path / "beside"
    disk.mkdir()
    beside.mkdir()
    (disk / "old").write_bytes(bytes(60))
    (disk / ".disk").write_text(instruction)
    command = [sys.executable, "-c", WRITE, str(disk / "a"), str(beside / "a")]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(FAULTY), "TIERSCALE_CHAOS_DISKS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [wanted, "written"]
    assert (disk / "a").exists() == (wanted == "written") and (disk / "old").exists()


SICK = """
import os
from pathlib import Path
import numpy as np
from tierscale.pipeline.inference import enlarge

def make(told):
    Path(os.environ["TIERSCALE_CHAOS_SICK"]).write_text(told)
    return enlarge.Engine.run.__globals__["spoilt"](lambda: [(np.full((3, 2, 2), 0.25), 7.0)])()

for told in ("", "1", str(os.getpid())):
    print(make(told)[0][0].max())
"""


def test_a_process_makes_white_tiles_when_it_is_told_to(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SICK],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(FAULTY), str(FAULTY.parents[2])]),
            "TIERSCALE_CHAOS_SICK": str(tmp_path / "sick"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.25", "0.25", "1.0"]
