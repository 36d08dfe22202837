"""The folder beside an output, OUTPUT.zarr.tierscale, and the names that other modules look for."""

from tierscale.pipeline.storage.paths import Place, place

SIDECAR_SUFFIX = ".tierscale"
LEASE_NAME = "lease.json"
PLAN_NAME = "plan.json"


def sidecar(output: str) -> Place:
    """The folder beside the output at a path or URI: plan, receipts, tables, pictures, lease."""
    return place(f"{output.rstrip('/')}{SIDECAR_SUFFIX}")
