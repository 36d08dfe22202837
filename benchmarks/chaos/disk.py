"""Disks that become full or read-only, and memory that runs out."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.chaos.driver import waited
from benchmarks.chaos.faulty.sitecustomize import DISK

# What is taken of the machine's memory leaves this much to others.
SPARE_BYTES = 3 << 30


def ballast(enough: Callable[[], bool]) -> None:
    """Take memory piece by piece until it is enough, then give it back.

    Stops early where the machine has none to spare.
    """
    held = []
    while not enough() and psutil.virtual_memory().available > SPARE_BYTES:
        held.append(bytearray(os.urandom(1 << 20) * 64))
    waited(enough, 2)


def mountable() -> bool:
    """Whether file systems may be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)
        return True


class Disk:
    """A file system of its own, for as long as the context lasts.

    It is in memory, or, where none may be mounted, a folder that Python's calls take for one
    (faulty/). size: bytes.
    """

    def __init__(self, path: Path, size: int, mounts: bool) -> None:
        self.path, self.size, self.mounts = path, size, mounts

    def __enter__(self) -> "Disk":
        self.path.mkdir()
        if self.mounts:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path],
                check=True,
                capture_output=True,
            )
        else:
            self._write_capacity(str(self.size))
        return self

    def resize(self, size: int) -> None:
        """Change how many bytes fit."""
        self._remount(f"size={size}", str(size))

    def lock(self) -> None:
        """Make it read-only."""
        self._remount("ro", "ro")

    def unlock(self) -> None:
        """Let it be written again."""
        self._remount("rw", str(self.size))

    def _remount(self, options: str, capacity: str) -> None:
        """Change how it is mounted; while a file is being written it cannot become read-only."""
        if not self.mounts:
            self._write_capacity(capacity)
            return

        def done() -> bool:
            return (
                subprocess.run(
                    ["mount", "-o", f"remount,{options}", self.path], capture_output=True
                ).returncode
                == 0
            )

        assert waited(done, 30), f"cannot remount {self.path} with {options}"

    def _write_capacity(self, capacity: str) -> None:
        """Put what the folder can take into its file, in one piece."""
        beside = self.path.with_suffix(".new")
        beside.write_text(capacity)
        beside.replace(self.path / DISK)

    def __exit__(self, *error: object) -> None:
        if self.mounts:
            subprocess.run(["umount", "-l", self.path], check=True, capture_output=True)
