"""What the prescan found of an image, kept beside its output until its plan is stored.

No tile is then scored twice when a job is interrupted between the two.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.models.contract.kind import Kind
from tierscale.pipeline.plan.evidence import Evidence
from tierscale.pipeline.plan.plan import Draft, Family, ScoredPlan
from tierscale.pipeline.plan.stored import draft_document, draft_fields
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.paths import Place

NAME = "scores.parquet"
MARK = b"tierscale"
# What scores do not depend on: where the source lies, how tiles are then given their tiers, and the
# version of the package.
APART = ("uri", "policy", "code")


def basis(draft: Draft) -> str:
    """Digest of all that scores depend on, hex."""
    document = {key: value for key, value in draft_document(draft).items() if key not in APART}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def save(folder: Place | Path, scored: ScoredPlan) -> None:
    """Store what the prescan found of an image whose tiers are not chosen yet."""
    about = {
        "basis": basis(scored),
        "value_range": scored.value_range.to_json(),
        "settings": [dict(names) for names in scored.settings],
        "family": scored.family,
        "kind": None if scored.kind is None else scored.kind.to_json(),
        "evidence": scored.evidence.to_json(),
    }
    column = pa.array(list(scored.scores.astype(np.float32)), pa.list_(pa.float32()))
    table = pa.table({"predicted_mse": column}).replace_schema_metadata({MARK: json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(folder / NAME, sink.getvalue().to_pybytes())


def load_family(folder: Place | Path) -> tuple[Family, Kind | None] | None:
    """The family that was chosen for the image whose scores were kept; None: there is none."""
    try:
        table = pq.read_table(pa.BufferReader((folder / NAME).read_bytes()))
        about: dict[str, Any] = json.loads(table.schema.metadata[MARK])
        kind = about["kind"]
        return about["family"] and (about["family"], None if kind is None else Kind(**kind))
    except (FileNotFoundError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def load(folder: Place | Path, draft: Draft) -> ScoredPlan | None:
    """What was kept of a draft; None: there is nothing, or it is of another draft."""
    try:
        table = pq.read_table(pa.BufferReader((folder / NAME).read_bytes()))
        about: dict[str, Any] = json.loads(table.schema.metadata[MARK])
        if about["basis"] != basis(draft):
            return None
        value_range, settings = ValueRange.from_json(about["value_range"]), about["settings"]
        evidence = Evidence.from_json(about["evidence"])
    except (FileNotFoundError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None
    scores = np.array(table["predicted_mse"].to_pylist(), np.float32)
    return ScoredPlan(
        **draft_fields(draft),
        value_range=value_range,
        settings=tuple(settings),
        scores=scores.reshape(-1, len(draft.tiers)),
        evidence=evidence,
    )
