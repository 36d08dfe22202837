"""Scores of an image without routes yet, stored so that no tile is scored twice."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.output.receipts import write_bytes
from tierscale.pipeline.output.tile_table import scores_of
from tierscale.pipeline.plan.plan import Plan, plain_levels, read_levels
from tierscale.pipeline.storage.paths import Place

NAME = "scores.parquet"
MARK = b"tierscale"


def basis(plan: Plan) -> str:
    """Digest of all that scores depend on: the request, but for how tiles then get their tiers."""
    request = plan.asked()
    request["policy"] = {name: request["policy"][name] for name in ("scout", "statistics")}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def save(folder: Place, plan: Plan, scores: np.ndarray) -> None:
    """Store scores (tiles, tiers) with the value range and settings of a plan not yet routed."""
    if plan.levels is None or plan.given is None:
        raise ValueError("the plan has no value range yet; scores are stored after the pre-pass")
    header = {
        "basis": basis(plan),
        "levels": plain_levels(plan.levels),
        "given": [dict(names) for names in plan.given],
    }
    column = pa.array(list(scores.astype(np.float32)), pa.list_(pa.float32()))
    table = pa.table({"predicted_mse": column}).replace_schema_metadata({MARK: json.dumps(header)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(folder / NAME, sink.getvalue().to_pybytes())


def load(folder: Place, draft: Plan) -> tuple[Plan, np.ndarray] | None:
    """The plan and the scores (tiles, tiers) that were stored for a draft; None: there are none."""
    try:
        table = pq.read_table(pa.BufferReader((folder / NAME).read_bytes()))
        header: dict[str, Any] = json.loads(table.schema.metadata[MARK])
    except (FileNotFoundError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None
    if header["basis"] != basis(draft):
        return None
    plan = replace(draft, levels=read_levels(header["levels"]), given=tuple(header["given"]))
    return plan, scores_of(table, len(draft.tiers))
