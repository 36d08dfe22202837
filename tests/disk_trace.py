"""What is done to the disk, in order: which files and folders are synced, which names are given."""

import os
from pathlib import Path

import pytest


class DiskTrace:
    """Records syncs and renames in this process.

    events: ("sync", path) and ("name", path), a name being given to what lay under another.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self._named: dict[str, str] = {}
        fsync, replace = os.fsync, os.replace

        def synced(descriptor: int) -> None:
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def replaced(source: str, target: str) -> None:
            replace(source, target)
            self._named[str(target)] = str(source)
            self.events.append(("name", str(target)))

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)

    def named(self, path: Path) -> int:
        """When a name was given last."""
        return max(at for at, event in enumerate(self.events) if event == ("name", str(path)))

    def durable(self, path: Path) -> int:
        """When content and name of a file were both on the disk; AssertionError: never.

        The content must be there before the name.
        """
        named = self.named(path)
        before, after = self.events[:named], self.events[named:]
        assert ("sync", self._named[str(path)]) in before, f"{path} may be empty under its name"
        folder = ("sync", str(path.parent))
        assert folder in after, f"{path} may be gone"
        return named + after.index(folder)
