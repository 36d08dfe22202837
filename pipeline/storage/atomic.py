"""Files that are written whole or not at all, locally and in object stores.

A local file is written under a temporary name and renamed, so that a reader sees all of it or
nothing. Object stores promise the same of every put.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place


def write_json(path: Place, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; raises what write_bytes does."""
    write_bytes(path, json.dumps(content, indent=1).encode())


def write_bytes(path: Place, content: bytes) -> None:
    """Write a file, and the folders above it, whole or not at all.

    DiskFull: no space is left. Refused: nothing may be written there. Damaged: the write failed.
    """
    if isinstance(path, ObjectPath):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise storage_failure(str(path), error) from error
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_failure(str(path), error) from error
