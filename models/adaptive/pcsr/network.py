"""The network of PCSR (Jeong et al. 2024, arXiv 2407.21448) in a form that can be trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.mlp import Mlp
from tierscale.models.runtime.nearest import Axis

Encoder = Carn | Fsrcnn | Srresnet
ENCODERS: dict[str, type[Encoder]] = {
    "carn": Carn,
    "fsrcnn": Fsrcnn,
    "srresnet": Srresnet,
}


class Pcsr(nn.Module):
    """The network (section 3) in a form that can be trained.

    encoder: of ENCODERS; encoder_arguments: of its constructor. samplers: widths of the hidden
    layers of each sampler, two or more samplers from light to heavy; classifier: those of the
    classifier.
    """

    def __init__(
        self,
        encoder: str = "carn",
        encoder_arguments: Mapping[str, Any] = {},
        samplers: Sequence[Sequence[int]] = ((20, 20, 20), (74, 74, 74, 74)),
        classifier: Sequence[int] = (10, 10),
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"PCSR has no encoder {encoder!r}; known are {', '.join(ENCODERS)}")
        if len(samplers) < 2:
            raise ValueError(
                f"PCSR chooses among two or more samplers, not {len(samplers)}; give their hidden"
                " layers from light to heavy"
            )
        self.encoder: Encoder = ENCODERS[encoder](features_only=True, **encoder_arguments)
        features = self.encoder.features
        self.samplers = module_list(Mlp(features, hidden, 3) for hidden in samplers)
        self.classifier = Mlp(features, classifier, len(samplers))

    def forward(self, x: Tensor, rows: Axis, columns: Axis) -> tuple[Tensor, list[Tensor]]:
        """x (N, 3, h, w), values around the mean, to logits and what each sampler makes.

        Logits (N, samplers, H, W), and every pixel by every sampler, (N, 3, H, W) each.
        A chosen sampler's pixels are added to the bilinear enlargement of the input. Encoder,
        classifier and samplers can be called alone.
        """
        features = self.encoder(x)
        return self.classifier(features, rows, columns), [
            sampler(features, rows, columns) for sampler in self.samplers
        ]
