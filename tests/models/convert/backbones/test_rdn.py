"""Upstream checkpoints of RDN."""

from pathlib import Path

import pytest
import torch

from tierscale.models.backbones import rdn
from tierscale.models.convert.upstream import convert

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rdn_comes_back_from_upstream_names(tmp_path: Path) -> None:
    network = rdn.Rdn(4, features=8, growth=8, blocks=2, layers=3)
    upstream = {}
    for name, tensor in network.state_dict().items():
        stage, *rest = name.split(".")
        if stage == "blocks" and rest[1] == "layers":
            upstream[f"RDBs.{rest[0]}.convs.{rest[2]}.conv.0.{rest[3]}"] = tensor
        elif stage == "blocks":
            upstream[f"RDBs.{rest[0]}.LFF.{rest[2]}"] = tensor
        elif stage == "tail":
            upstream[
                f"UPNet.{ {'grow.0': 0, 'grow.1': 2}.get('.'.join(rest[:2]), 4) }.{rest[-1]}"
            ] = tensor
        else:
            theirs = {"first": "SFENet1", "second": "SFENet2", "fuse": "GFF.0", "join": "GFF.1"}[
                stage
            ]
            upstream[f"{theirs}.{rest[0]}"] = tensor
    torch.save(upstream, tmp_path / "r.pth")
    made = convert(tmp_path / "r.pth", "rdn", {"scale": 4})
    assert made.spec.arguments == {"features": 8, "growth": 8, "blocks": 2, "layers": 3}
    assert all(
        torch.equal(made.tensors[name], tensor) for name, tensor in network.state_dict().items()
    )
