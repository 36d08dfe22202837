"""From a file of weights to a network of spandrel, or a sentence that says why not."""

import importlib.util
import sys
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

from tierscale.models.contract.checkpoints import FORMAT, WeightsFile
from tierscale.models.convert.community.upscaler import CommunityUpscaler
from tierscale.models.convert.files import parse_upstream

# Before the names of a network that was saved inside another object: a trainer of several networks,
# torch.compile, DataParallel, a running mean. spandrel knows "module." and "netG.".
PREFIXES = ("generator.", "net_g.", "netG.", "params_ema.", "_orig_mod.", "module.", "model.")
# Those of a trainer, which saves other networks beside the one that enlarges.
OF_TRAINERS = ("generator.", "net_g.", "netG.", "params_ema.")
# Kinds of result that a tier cannot be.
REFUSED_PURPOSES = {"FaceSR": "restores faces and nothing else"}


def is_foreign(file: WeightsFile) -> bool:
    """Whether a file holds weights that are none of ours: it does not say so in its own header."""
    about = file.metadata()
    return about is None or about.get("format") != FORMAT


def load(file: WeightsFile) -> CommunityUpscaler:
    """The network of a file.

    ValueError: spandrel is missing, does not know it, it does not enlarge pictures, or it holds
    values that are no numbers.
    """
    path = file.path
    try:
        spandrel = import_spandrel()
    except ImportError as error:
        raise ValueError(
            f"{path} is no network of tierscale; for networks of other programs, install spandrel:"
            ' pip install "tierscale[community]"'
        ) from error
    weights = parse_upstream(file)
    if not isinstance(weights, Mapping):
        raise ValueError(f"{path} holds a {type(weights).__name__} and no tensors by name")
    named = _stripped(spandrel.canonicalize_state_dict(dict(weights)))
    _check_numbers(named, file)
    try:
        with warnings.catch_warnings():
            # Of what torch will change, about code that is not ours.
            warnings.simplefilter("ignore")
            descriptor = spandrel.ModelLoader().load_from_state_dict(named)
    # On names that it half knows, spandrel raises what its code stumbles over.
    except (
        spandrel.UnsupportedModelError,
        *(KeyError, RuntimeError, AssertionError, TypeError, IndexError, AttributeError),
        ValueError,
    ) as error:
        first = ", ".join(map(repr, list(named)[:3])) or "nothing"
        raise ValueError(
            f"{path} is no network of tierscale, and none that spandrel knows: its weights begin"
            f" with {first}; tierscale models says which networks there are"
        ) from error
    _check_descriptor(spandrel, descriptor, file)
    return CommunityUpscaler(descriptor)


def _stripped(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights under the names that the network itself gives them."""
    found = dict(weights)
    for prefix in OF_TRAINERS:
        if any(name.startswith(prefix) for name in found):
            found = {name: value for name, value in found.items() if name.startswith(prefix)}
            break
    while found and (
        prefix := next((one for one in PREFIXES if all(n.startswith(one) for n in found)), "")
    ):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _check_numbers(weights: Mapping[str, Any], file: WeightsFile) -> None:
    """ValueError: a weight is NaN or infinite, which would make pictures black."""
    for name, value in weights.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"{file.path} holds {name!r} with values that are no finite numbers; its training"
                " went wrong, or the file is damaged: take another file"
            )


def _check_descriptor(spandrel: Any, descriptor: Any, file: WeightsFile) -> None:
    """ValueError: what spandrel built does not make a picture of one alike."""
    kind = descriptor.architecture.name
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or channels not in (
        (1, 1),
        (3, 3),
        (4, 4),
    ):
        raise ValueError(
            f"{file.path} is a {kind} from {channels[0]} to {channels[1]} channels; a tier makes a"
            " picture of 1, 3 or 4 channels from one alike"
        )
    if descriptor.purpose in REFUSED_PURPOSES:
        raise ValueError(
            f"{file.path} is a {kind}, which {REFUSED_PURPOSES[descriptor.purpose]}; choose a"
            " network for whole pictures"
        )


def import_spandrel() -> Any:
    """The module spandrel; ImportError where it is not installed.

    It imports torchvision for two networks, one that fills holes and one for faces. A torchvision
    that was built for another torch than the one that is here breaks on import, so where it is
    missing or broken, empty names stand in for it meanwhile.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise ImportError("spandrel is not installed")
    names: tuple[str, ...] = (
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.functional",
    )
    try:
        import torchvision.transforms.functional  # noqa: F401 - only whether it can be

        names = ()
    except (ImportError, RuntimeError):
        sys.modules.update({name: ModuleType(name) for name in names})
        sys.modules[names[-1]].__dict__.update(
            dict.fromkeys(("InterpolationMode", "rotate", "normalize"))
        )
    try:
        import spandrel

        _register_extra(spandrel)
    finally:
        for name in names:
            del sys.modules[name]
    return spandrel


def _register_extra(spandrel: Any) -> None:
    """Let spandrel know the networks of spandrel_extra_arches, where that is installed too."""
    if importlib.util.find_spec("spandrel_extra_arches") is not None:
        import spandrel_extra_arches

        spandrel.MAIN_REGISTRY.add(*spandrel_extra_arches.EXTRA_REGISTRY, ignore_duplicates=True)
