"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

# What a checkout says that is not installed.
SOURCE_VERSION = "0.2.0+source"


def code_version() -> str:
    """The version in the metadata of the installed package; recorded in plans, never compared."""
    try:
        return version("tierscale")
    except PackageNotFoundError:
        return SOURCE_VERSION
