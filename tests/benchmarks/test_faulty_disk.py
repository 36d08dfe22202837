"""The disks whose faults `make chaos` injects where none may be mounted."""

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
        env={**os.environ, "PYTHONPATH": str(FAULTY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [wanted, "written"]
    assert (disk / "a").exists() == (wanted == "written") and (disk / "old").exists()
