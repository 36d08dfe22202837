"""A narrower CARN from a trained one: the channels that carry most, as first weights for training.

`python -m benchmarks.reproduce.narrow carn-x4 --features 52 --hr DIR -o FILE`, or `--features 32
--groups 2` to give up whole groups. So PCSR's CARN of 52 channels and ClassSR's lighter branches
began.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tierscale.models import registry
from tierscale.models.backbones.carn import Carn
from tierscale.models.contract.checkpoints import (
    Checkpoint,
    ModelSpec,
    read_checkpoint,
    write_checkpoint,
)
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink

# Photos, and output pixels a side of each, that tell which channels carry most.
PHOTOS, SIDE = 6, 384


def carried(network: Carn, photos: list[Tensor]) -> Tensor:
    """How much each channel carries between layers, as a mean over layers and photos.

    (features,).
    """
    total = torch.zeros(network.features)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        mean = output.relu().mean(dim=(0, 2, 3))
        total.add_(mean / mean.mean())

    watched = [
        network.entry,
        *network.merges,
        *(merge for block in network.blocks for merge in block.merges),
    ]
    hooks = [module.register_forward_hook(add) for module in watched]
    with torch.inference_mode():
        for photo in photos:
            network(photo[None])
    for hook in hooks:
        hook.remove()
    return total


def narrow(
    checkpoint: Checkpoint, features: int, photos: list[Tensor], groups: int | None = None
) -> Checkpoint:
    """The network with `features` channels, as many from each group of its grouped convolutions.

    groups: that stay; None: all it has. photos: (3, h, w), around the mean. ValueError: it is no
    CARN, or has no such groups.
    """
    spec = checkpoint.spec
    all_groups, wide = spec.arguments.get("groups", 4), spec.arguments.get("features", 64)
    groups, own = groups or all_groups, wide // all_groups
    if (
        spec.network != "carn"
        or not 0 < groups <= all_groups
        or features % groups
        or not 0 < features <= min(groups * own, wide - 1)
    ):
        raise ValueError(
            f"a {spec.network} of {wide} channels in groups of {own} cannot be narrowed to"
            f" {features} in {groups} groups; give a CARN, fewer channels, and as many in each"
            " group"
        )
    network = Carn(scale=spec.scale, **spec.arguments)
    network.load_state_dict(checkpoint.tensors)
    carry = carried(network.eval(), photos).view(all_groups, own)
    which = carry.sum(dim=1).topk(groups).indices.sort().values
    most = carry[which].topk(features // groups).indices.sort().values  # (groups, kept of each)
    kept = (most + own * which[:, None]).flatten()
    tensors = {
        name: _cut(name, tensor, kept, most, wide) for name, tensor in checkpoint.tensors.items()
    }
    return Checkpoint(
        replace(spec, arguments={**spec.arguments, "features": features, "groups": groups}),
        tensors,
    )


def _cut(name: str, tensor: Tensor, kept: Tensor, most: Tensor, wide: int) -> Tensor:
    """One weight of the narrower network.

    Growing convolutions give several channels for each; 3x3 convolutions see their group only.
    """
    if name == "exit.bias":
        return tensor
    if name == "exit.weight":
        return tensor[:, kept].contiguous()
    each = len(tensor) // wide
    rows = tensor[(kept[:, None] * each + torch.arange(each)).flatten()]
    if name.endswith("bias") or name == "entry.weight":
        return rows
    if ".first." in name or ".second." in name or name.startswith("grow."):
        parts = rows.chunk(len(most))
        return torch.cat([part[:, channels] for part, channels in zip(parts, most, strict=True)])
    times = tensor.shape[1] // wide
    return rows[:, torch.cat([kept + wide * index for index in range(times)])]


def main() -> int:
    """Write the narrower checkpoint; exit code 2 when the arguments cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce.narrow", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("name", help="a CARN of the zoo, or file:PATH")
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument(
        "--groups", type=int, help="of the grouped convolutions; all that there are"
    )
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of photos")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    try:
        checkpoint = read_checkpoint(registry.locate(options.name))
        narrower = narrow(
            checkpoint,
            options.features,
            list(_seen(options.hr, checkpoint.spec)),
            options.groups,
        )
    except ValueError as error:
        print(f"narrow: {error}", file=sys.stderr)
        return 2
    write_checkpoint(options.out, narrower)
    return 0


def _seen(folder: Path, spec: ModelSpec) -> list[Tensor]:
    mean, scale = torch.tensor(spec.mean).view(3, 1, 1), spec.scale
    crops = [
        centre_crop(read_image(path), scale)[:, :SIDE, :SIDE] / 255
        for path in image_files(folder)[:PHOTOS]
    ]
    return [shrink(crop, scale) - mean for crop in crops]


if __name__ == "__main__":
    sys.exit(main())
