"""Where a manifest's rows may read and write: manifests come from anywhere, and their paths are only followed inside stated roots."""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from pipeline.errors import Refused


def public(uri: str) -> str:
    """An address without the password or the signature that somebody wrote into it; any other text as it is."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.username is None and parts.password is None and not (parts.scheme in ("http", "https") and parts.query):
        return uri
    return f"{parts.scheme}://…{parts.hostname}{parts.path}"


def check_secrets(uri: str) -> None:
    """Refuse an address with a secret in it, without repeating it: addresses go into plans, reports and logs."""
    if public(uri) != uri:
        raise Refused(f"the address {public(uri)} holds a secret, which would end up in plans and reports; give it through the environment")


def output_below(output: str, root: str, known: dict[str, str] | None = None) -> str:
    """The place of an output, as it is. Refused: it is not below the root, as it stands or after links are followed.

    A link inside the root that leads out of it is an escape as well. known: where folders lead, kept from call to call, because following
    the links of a million names takes minutes.
    """
    check_secrets(output)
    if "\0" in output or ".." in output.split("/"):
        raise Refused(f"the output {output!r} is no plain path below {root}; name one without '..'")
    remote = "://" in output or "://" in root
    if not (output.rstrip("/").startswith(root.rstrip("/") + "/") if remote else _below(output, root, known)):
        raise Refused(
            f"the output {output} does not lie below {root} (links are followed); name a place inside it, or change --output-root"
        )
    return output


def check_source(source: str, roots: Sequence[str]) -> None:
    """Refuse a source that lies below none of the roots, as it stands or after links are followed. No roots: all may be read."""
    check_secrets(source)
    if not roots:
        return
    path = source.removeprefix("file://")
    if ".." not in path.split("/"):
        if "://" in path:
            if any(path.startswith(root.rstrip("/") + "/") for root in roots):
                return
        elif any("://" not in root and _below(path, root) for root in roots):
            return
    raise Refused(
        f"the source {source} does not lie below {' or '.join(roots)} after links are followed; add its folder with --source-root"
    )


def _below(path: str, root: str, known: dict[str, str] | None = None) -> bool:
    """Whether a local path lies below a folder once links are followed; the folder itself does not."""
    known = {} if known is None else known

    def lead(folder: str) -> str:
        if folder not in known:
            known[folder] = os.path.realpath(folder)
        return known[folder]

    folder, name = os.path.split(path)
    here = os.path.realpath(path) if name in ("", ".", "..") or os.path.islink(path) else os.path.join(lead(folder), name)
    top = lead(root)
    return here != top and os.path.commonpath([here, top]) == top
