"""What the pre-pass found of an image, kept beside its output until the plan is frozen, so that no
tile is scored twice.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.plan.plan import Plan, plain_levels, read_levels
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.paths import Place

NAME = "scores.parquet"
MARK = b"tierscale"


def basis(plan: Plan) -> str:
    """Digest of all that scores depend on: what was asked, but for how tiles are then given their
    tiers.
    """
    asked = plan.asked()
    asked["policy"] = {name: asked["policy"][name] for name in ("scout", "statistics")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def keep(folder: Place, plan: Plan, scores: np.ndarray) -> None:
    """Store scores (tiles, tiers) with the levels and whole-image values of a plan that is not
    routed yet.
    """
    assert plan.levels is not None and plan.given is not None
    about = {
        "basis": basis(plan),
        "levels": plain_levels(plan.levels),
        "given": [dict(names) for names in plan.given],
    }
    column = pa.array(list(scores.astype(np.float32)), pa.list_(pa.float32()))
    table = pa.table({"predicted_mse": column}).replace_schema_metadata({MARK: json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(folder / NAME, sink.getvalue().to_pybytes())


def kept(folder: Place, draft: Plan) -> tuple[Plan, np.ndarray] | None:
    """The plan and scores that were kept of a draft; None: there are none, or of another draft."""
    try:
        table = pq.read_table(pa.BufferReader((folder / NAME).read_bytes()))
        about: dict[str, Any] = json.loads(table.schema.metadata[MARK])
    except (FileNotFoundError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None
    if about["basis"] != basis(draft):
        return None
    plan = replace(draft, levels=read_levels(about["levels"]), given=tuple(about["given"]))
    return plan, np.array(table["predicted_mse"].to_pylist(), np.float32).reshape(
        -1, len(draft.tiers)
    )
