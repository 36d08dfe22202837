"""What methods have in common that leave parts of a plain network out (APE, AdaDSR)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Self

from torch import nn

from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.efforts import (
    Efforts,
    check_effort,
    check_settings,
    measured_setting,
)
from tierscale.models.contract.upscaler import LARGE
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.runtime.stream import RowNetwork


class OnPlain:
    """A plain network, and modules beside it that decide how much of it runs where.

    At effort 1 the plain network runs everywhere and nothing is decided.

    title: of the method, for errors. network: the plain one. method: it and the deciding modules.
    origin: names the checkpoint in errors.
    """

    title: ClassVar[str]
    control: str | None
    efforts: Efforts | None = None

    def __init__(
        self, network: RowNetwork, method: nn.Module, spec: ModelSpec, origin: str
    ) -> None:
        self.plain = PlainUpscaler(network, spec)
        self.spec, self.origin = spec, origin
        self.scales: frozenset[Fraction] | None = self.plain.scales
        self.parameters = sum(parameter.numel() for parameter in method.parameters())
        self._modules = method.eval().requires_grad_(False)

    def to(self, device: str) -> Self:
        """Move the weights, in place."""
        self.plain.to(device)
        self._modules.to(device)
        return self

    @property
    def has_bfloat16(self) -> bool:
        """As the plain network."""
        return self.plain.has_bfloat16

    def to_bfloat16(self) -> Self:
        """The plain network's weights and maps; what decides stays float32."""
        self.plain.to_bfloat16()
        return self

    def setting(self, effort: float, settings: Mapping[str, float]) -> float | None:
        """The setting of the control; None: nothing is decided, at full effort.

        ValueError: an unknown name, or an effort that was not measured.
        """
        control = self.control or ""
        check_settings(self.title, settings, (control,))
        check_effort(effort)
        if control in settings:
            return float(settings[control])
        return None if effort == 1 else measured_setting(self.efforts, effort, self.origin)

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window.

        Below full effort the mean over the images that the efforts were measured on.
        """
        full = self.plain.count(LARGE, LARGE) / LARGE**2
        if effort == 1 or self.efforts is None:
            return full
        return full * self.efforts.cost_fraction(effort)
