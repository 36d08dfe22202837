"""The tile table beside an output, tiles.parquet: position, scores, tier and cost of every tile."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing.policies import difficulty
from tierscale.pipeline.storage.paths import Place

NAME = "tiles.parquet"
SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in ("row", "column", "y", "x", "height", "width")),
        ("difficulty", pa.float32()),
        ("predicted_mse", pa.list_(pa.float32())),
        ("fidelity", pa.float32()),
        ("tier", pa.string()),
        ("cost", pa.float64()),
        ("milliseconds", pa.float32()),
        ("shard_row", pa.int32()),
        ("shard_column", pa.int32()),
    ]
)


def to_parquet(
    plan: Plan,
    scores: np.ndarray,
    tile_costs: np.ndarray | None = None,
    fidelity: np.ndarray | None = None,
) -> bytes:
    """The tile table of a plan as a Parquet file, rows in reading order.

    scores: predicted squared errors, (tiles, tiers). tile_costs: multiply-adds and milliseconds of
    every tile as in its receipt, (2, rows, columns); None before there are receipts: all 0.
    fidelity: of every tile, dB (rows, columns); NaN or None: not known.
    """
    rows, columns = plan.grid.tiles
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    tile, (height, width) = plan.tile, plan.grid.size
    shard_rows, shard_columns = plan.grid.shard_tiles
    macs, milliseconds = np.zeros((2, rows, columns)) if tile_costs is None else tile_costs
    known = np.full((rows, columns), np.nan) if fidelity is None else fidelity
    table = pa.table(
        {
            "row": row,
            "column": column,
            "y": row * tile,
            "x": column * tile,
            "height": np.minimum(tile, height - row * tile),
            "width": np.minimum(tile, width - column * tile),
            "difficulty": difficulty(np.ascontiguousarray(scores, np.float32)),
            "predicted_mse": _lists(scores),
            "fidelity": _or_null(known),
            "tier": _tiers(plan),
            "cost": macs.ravel(),
            "milliseconds": milliseconds.ravel(),
            "shard_row": row // shard_rows,
            "shard_column": column // shard_columns,
        },
        schema=SCHEMA,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _lists(scores: np.ndarray) -> pa.ListArray:
    """Scores (tiles, tiers) as lists, without a Python object for each of maybe a million tiles."""
    values = np.ascontiguousarray(scores, np.float32)
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, values.ravel())


def _or_null(values: np.ndarray) -> pa.Array:
    """Values as float32, null where they are NaN."""
    return pa.array(values.ravel(), pa.float32(), from_pandas=True)


def _tiers(plan: Plan) -> pa.Array:
    """The label of every tile's tier."""
    return pa.array([tier.label for tier in plan.tiers]).take(pa.array(plan.routes.ravel()))


def read(folder: Place) -> pa.Table:
    """The tile table, with the columns of SCHEMA. Refused: there is none."""
    try:
        return pq.read_table(pa.BufferReader((folder / NAME).read_bytes()))
    except FileNotFoundError:
        raise Refused(f"there is no tile table {folder / NAME}; upscale the image first") from None


def read_scores(folder: Place, tiers: int) -> np.ndarray:
    """Predicted squared errors from the tile table: (tiles, tiers), float32."""
    return scores_of(read(folder), tiers)


def scores_of(table: pa.Table, tiers: int) -> np.ndarray:
    """Predicted squared errors of a tile table: (tiles, tiers), float32."""
    column = table["predicted_mse"].combine_chunks()
    return np.array(column.flatten(), np.float32).reshape(-1, tiers)
