"""Enlarge very large images and whole archives: a big network only where the picture needs one.

Arrays in memory (numpy, dask, zarr), without files and without Ray:

    import tierscale

    large = tierscale.upscale_array(pixels, 4, axes="yxc")
    large = tierscale.upscale_array(pixels, 4, axes="yxc", budget=0.3)
    lazy = tierscale.upscale_array(dask_array, 4)                   # made when it is computed
    stored = tierscale.upscale_array(pixels, 4, out="large.zarr")   # in bounded memory

Many files, on an embedded Ray or on a cluster:

    manifest = tierscale.Manifest.scan("archive/", "*.tif", output_root="out/")
    options = tierscale.Options(policy=tierscale.Budget(0.3))
    table = tierscale.upscale_dataset(manifest, options, workers=4, max_memory=16 << 30)

What there is:

    upscale_array       enlarge an array; the same bytes as the command
    upscale_dataset     enlarge every image of a manifest; a pyarrow table with a row for each
    Manifest            a table of images: scan a folder, read or write Parquet, CSV, JSON Lines
    Options             how an image is enlarged: scale, tiers, policy, tile, region, ...
    Adaptive, Budget, MaxLoss, Deadline, Threshold, Full, Light
                        policies: how tiles are given their tiers
    load_network        an upscaler by its name in `tierscale models`, or file:PATH
    Refused             what was asked cannot work, and nothing was done (a ValueError)
    Damaged             work was begun and could not be finished (a RuntimeError)
    Interrupted         the work was asked to stop; the same call again goes on
    __version__         version of the package

Everything else may change from version to version. Modules are loaded when they are first used, so
that `import tierscale` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierscale.jobs.upscale_dataset import upscale_dataset
    from tierscale.models.registry import load as load_network
    from tierscale.pipeline.dataset.manifest import Manifest
    from tierscale.pipeline.errors import Damaged, Interrupted, Refused
    from tierscale.pipeline.plan.options import Options
    from tierscale.pipeline.plan.policies import (
        Adaptive,
        Budget,
        Deadline,
        Full,
        Light,
        MaxLoss,
        Threshold,
    )
    from tierscale.pipeline.run.array import upscale_array
    from tierscale.pipeline.version import code_version

    __version__ = code_version()

__all__ = [
    "Adaptive",
    "Budget",
    "Damaged",
    "Deadline",
    "Full",
    "Interrupted",
    "Light",
    "Manifest",
    "MaxLoss",
    "Options",
    "Refused",
    "Threshold",
    "__version__",
    "load_network",
    "upscale_array",
    "upscale_dataset",
]

_POLICIES = "tierscale.pipeline.plan.policies"
_ERRORS = "tierscale.pipeline.errors"
# Public name -> the module that defines it, and its name there.
_SOURCES = {
    "upscale_array": ("tierscale.pipeline.run.array", "upscale_array"),
    "upscale_dataset": ("tierscale.jobs.upscale_dataset", "upscale_dataset"),
    "Manifest": ("tierscale.pipeline.dataset.manifest", "Manifest"),
    "Options": ("tierscale.pipeline.plan.options", "Options"),
    "load_network": ("tierscale.models.registry", "load"),
    **{
        name: (_POLICIES, name)
        for name in ("Adaptive", "Budget", "Deadline", "Full", "Light", "MaxLoss", "Threshold")
    },
    **{name: (_ERRORS, name) for name in ("Damaged", "Interrupted", "Refused")},
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module("tierscale.pipeline.version").code_version()
    elif name in _SOURCES:
        module, attribute = _SOURCES[name]
        value = getattr(import_module(module), attribute)
    else:
        raise AttributeError(f"module 'tierscale' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
