"""Plans as JSON: written with a format number and a digest, read in every format that was released.

The digest is taken over the document as it was written, so that a plan of an older version keeps
its own, and with it the receipts that name it.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np

from tierscale.models.contract.kind import Kind
from tierscale.pipeline.plan.evidence import Audit, Evidence
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan
from tierscale.pipeline.plan.policies import OLD_NAMES, policy_from_json, policy_to_json
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.plan.tiers import Tier, Weights
from tierscale.pipeline.plan.value_range import ValueRange

# Version 0.1 wrote no number.
FORMAT = 2
# Parts of a document that the digest leaves out: itself, and where the source happens to lie.
UNDIGESTED = ("digest", "uri")


def freeze(scored: ScoredPlan, routes: np.ndarray, audit: Audit | None = None) -> Plan:
    """The plan of a scored image and its routes, (rows, columns) of tier indices."""
    plan = Plan(
        **draft_fields(scored),
        value_range=scored.value_range,
        settings=scored.settings,
        routes=routes.astype(np.int64),
        evidence=scored.evidence,
        audit=audit,
        digest="",
    )
    return with_digest(plan)


def with_digest(plan: Plan) -> Plan:
    """The same plan with the digest that its fields have."""
    return replace(plan, digest=digest_of(_document(plan)))


def draft_fields(draft: Draft) -> dict[str, Any]:
    """The fields that a draft shares with what it grows into, by name."""
    return {one.name: getattr(draft, one.name) for one in fields(Draft)}


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 over a plan's document, hex."""
    plain = {key: value for key, value in document.items() if key not in UNDIGESTED}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def draft_document(draft: Draft) -> dict[str, Any]:
    """The JSON values of what is known of any of the three types."""
    return {
        "format": FORMAT,
        "uri": draft.source.uri,
        "source": draft.source.to_json(),
        "shape": list(draft.shape),
        "dtype": draft.dtype,
        "colour": draft.colour,
        "alpha": draft.alpha,
        "scale": str(draft.scale),
        "tile": draft.tile,
        "blend": draft.blend,
        "tiers": [asdict(tier) for tier in draft.tiers],
        "policy": policy_to_json(draft.policy),
        "statistics": draft.statistics,
        "device": draft.device,
        "precision": draft.precision,
        "batch": list(draft.batch),
        "scoring": draft.scoring,
        "scorer": None if draft.scorer is None else asdict(draft.scorer),
        "family": draft.family,
        "kind": None if draft.kind is None else draft.kind.to_json(),
        "code": draft.code,
        "bytes_version": draft.bytes_version,
    }


def _document(plan: Plan) -> dict[str, Any]:
    return {
        **draft_document(plan),
        "value_range": plan.value_range.to_json(),
        "settings": [dict(names) for names in plan.settings],
        "routes": _pack(plan.routes),
        "evidence": None if plan.evidence is None else plan.evidence.to_json(),
        "audit": None if plan.audit is None else plan.audit.to_json(),
    }


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The document of a plan, with its digest."""
    return {**_document(plan), "digest": plan.digest}


def plan_from_json(document: Mapping[str, Any]) -> Plan:
    """The plan of a stored document. ValueError: its content is not what its digest says."""
    digest = digest_of(document)
    if digest != document["digest"]:
        raise ValueError(
            f"the stored plan was changed: its content has digest {digest[:12]}, it says"
            f" {document['digest'][:12]}"
        )
    if (number := document.get("format", 1)) > FORMAT:
        raise ValueError(
            f"the stored plan has format {number}, and this version of tierscale reads up to"
            f" {FORMAT}; install the version that wrote it, or a newer one"
        )
    plain = _from_format_1(document) if number == 1 else document
    evidence, audit, scorer = (plain.get(name) for name in ("evidence", "audit", "scorer"))
    return Plan(
        source=SourceRef.from_json(plain["uri"], plain["source"]),
        shape=tuple(plain["shape"]),
        dtype=plain["dtype"],
        colour=plain["colour"],
        alpha=plain["alpha"],
        scale=Fraction(plain["scale"]),
        tile=plain["tile"],
        blend=plain["blend"],
        tiers=tuple(Tier(**tier) for tier in plain["tiers"]),
        policy=policy_from_json(plain["policy"]),
        statistics=plain["statistics"],
        device=plain["device"],
        # Version 0.1 knew no other, and wrote none.
        precision=plain.get("precision", "fp32"),
        batch=tuple(plain["batch"]),
        scoring=plain["scoring"],
        scorer=None if scorer is None else Weights(**scorer),
        # Earlier versions had one family, and wrote none of both.
        family=plain.get("family"),
        kind=None if plain.get("kind") is None else Kind(**plain["kind"]),
        code=plain["code"],
        bytes_version=plain["bytes_version"],
        value_range=ValueRange.from_json(plain["value_range"]),
        settings=tuple(plain["settings"]),
        routes=_unpack(plain["routes"]),
        evidence=None if evidence is None else Evidence.from_json(evidence),
        audit=None if audit is None else Audit(**audit),
        digest=digest,
    )


def _from_format_1(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of version 0.1 with the names of FORMAT."""
    old = document["policy"]
    name = OLD_NAMES.get(old["name"], old["name"])
    parameters = {
        "budget": {"share": old["budget"], "shared": old["pooled"]},
        "max-loss": {"db": old["lose"]},
        "deadline": {"seconds": old["deadline"]},
        "threshold": {"gap": old["threshold"]},
    }
    return {
        **document,
        "policy": {"name": name, **parameters.get(name, {})},
        "statistics": old["statistics"],
        "scoring": document["scores"],
        "bytes_version": 1,
        "value_range": document["levels"],
        "settings": document["given"],
    }


def _pack(routes: np.ndarray) -> dict[str, Any]:
    """A small integer array as JSON: shape, and zlib-packed bytes in base64."""
    packed = base64.b64encode(zlib.compress(routes.astype(np.uint8).tobytes(), 9)).decode()
    return {"shape": list(routes.shape), "bytes": packed}


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that _pack() packed, (rows, columns), int64."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(packed["bytes"])), np.uint8)
    return flat.reshape(packed["shape"]).astype(np.int64)
