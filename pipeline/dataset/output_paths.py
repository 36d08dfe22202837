"""Where the enlarged image of a source goes: the tree of outputs mirrors the tree of sources."""

import os
import unicodedata
import uuid
from pathlib import Path

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.paths import join_path
from tierscale.pipeline.storage.sidecar import SIDECAR_SUFFIX


class OutputPaths:
    """The outputs of the sources below `root`; both roots are folders or URIs.

    An output depends on its own source and the two roots alone: other sources never move it.
    Folders are resolved once each, because following the links of a million paths takes minutes.
    """

    def __init__(self, root: str, output_root: str | None) -> None:
        self.root, self.output_root = root.rstrip("/") or root or ".", output_root
        self._resolved: dict[str, Path] = {}

    def of(self, source: str, named: str | None = None) -> str:
        """The output of a source: the one that its row names, or the mirrored one.

        A relative name lies below the output root. A source outside `root` keeps its whole path (of
        a URI: what follows `://`), so that no two sources share an output; links are followed in
        local folders. Refused: there is neither a name nor an output root.
        """
        if named is not None:
            whole = "://" in named or Path(named).is_absolute()
            return named if self.output_root is None or whole else self._join(named)
        if self.output_root is None:
            raise Refused(
                "column output is empty and there is no root for outputs; fill the column, or give"
                " --output-root"
            )
        source = source.rstrip("/")
        below = self._below_uri(source) if "://" in source else self._below_folder(Path(source))
        return self._join(f"{below}.zarr")

    def _join(self, below: str) -> str:
        return below if self.output_root is None else join_path(self.output_root, below)

    def _below_folder(self, source: Path) -> str:
        folder, base = self._resolve(str(source.parent)), Path("/")
        if "://" not in self.root and folder.is_relative_to(self._resolve(self.root)):
            base = self._resolve(self.root)
        return str(folder.relative_to(base) / source.name)

    def _resolve(self, folder: str) -> Path:
        if folder not in self._resolved:
            self._resolved[folder] = Path(os.path.realpath(folder))
        return self._resolved[folder]

    def _below_uri(self, source: str) -> str:
        if "://" in self.root and source.startswith(f"{self.root}/"):
            return source[len(self.root) + 1 :]
        path = Path(source.split("://", 1)[1])
        folder = Path(*(part for part in path.parent.parts if part not in ("/", "..")))
        return str(folder / path.name)


class TakenOutputs:
    """Outputs and who has them, known by where they lie and not by how they are written.

    Links of folders are followed, and upper and lower case are one where the disk says so. Folders
    are looked at once each.
    """

    def __init__(self) -> None:
        self._owners: dict[str, int] = {}
        # The folders above the outputs that are taken, and one owner of those below each.
        self._above: dict[str, int] = {}
        self._folders: dict[str, str] = {}
        self._folding: dict[str, bool] = {}

    def take(self, output: str, owner: int) -> int | None:
        """Note an output; None, or the owner of the same one, of one in it, or of one around it."""
        key = self.key(output)
        above = _folders_above(key)
        found = [
            self._owners.get(key),
            *(self._above.get(folder) for folder in (key, f"{key}{SIDECAR_SUFFIX}")),
            *(self._owners.get(folder.removesuffix(SIDECAR_SUFFIX)) for folder in above),
        ]
        taken = next((one for one in found if one is not None), None)
        if taken is None:
            self._owners[key] = owner
            self._above |= dict.fromkeys(above, owner)
        return taken

    def key(self, output: str) -> str:
        """The same text for two names of one place."""
        path = output.removeprefix("file://")
        if "://" in path:
            scheme, _, below = path.partition("://")
            return f"{scheme}://" + "/".join(part for part in below.split("/") if part != "")
        path = os.path.join(os.getcwd(), path.rstrip("/"))
        folder, name = os.path.split(path)
        if name in (".", "..") or os.path.islink(path):
            folder, name = os.path.split(os.path.realpath(path))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
            self._folding[folder] = folds_case(self._folders[folder])
        key = os.path.join(self._folders[folder], name)
        return fold(key) if self._folding[folder] else key


def _folders_above(key: str) -> list[str]:
    """The folders in which a place lies, without the root of the file system or the bucket."""
    parts = key.split("/")
    first = 4 if "://" in key else 2
    return ["/".join(parts[:count]) for count in range(first, len(parts))]


def fold(text: str) -> str:
    """The same text for names that differ in case, or in how their accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def folds_case(folder: str) -> bool:
    """Whether a disk takes names that fold() makes equal for one: SMB, exFAT and others do.

    folder: may not exist yet. A file is made for the moment of the test, and deleted; where none
    can be made, the answer is no.
    """
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    name = f".tierscale-\u00c4-{uuid.uuid4().hex}"
    path = os.path.join(folder, name)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except OSError:
        return False
    try:
        others = (name.lower(), unicodedata.normalize("NFD", name))
        return any(os.path.exists(os.path.join(folder, other)) for other in others)
    finally:
        os.unlink(path)
