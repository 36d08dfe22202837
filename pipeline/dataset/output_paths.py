"""Where the enlarged image of a source goes: the tree of outputs mirrors the tree of sources."""

import os
from pathlib import Path

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.paths import join_path


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
