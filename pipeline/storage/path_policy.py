"""Where rows of a manifest may read and write, and what of an address may be shown.

Manifests come from anywhere: their paths are followed inside stated roots only.
"""

import os
import re
import unicodedata
from collections.abc import Sequence

from tierscale.pipeline.errors import Refused

# Unicode's categories of characters that move the cursor, break or turn the line, or are none:
# control, format, separators, surrogates.
CONTROLS = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
# In the path of a working directory that Ray unpacked for a job. Each package has its own, and Ray
# deletes them as others need the room.
UNPACKED = "/runtime_resources/working_dir_files/"


def public(uri: str) -> str:
    """An address without the password or signature written into it; any other text as it is.

    Addresses may stand in a longer text, such as a list of tiers.
    """
    return re.sub(
        r"(https?://[^?]*)\?.+",
        r"\1",
        re.sub(r"://[^/?#]*@", "://…", uri),
        flags=re.IGNORECASE | re.DOTALL,
    )


def printable(text: str) -> str:
    """A text in one line that does nothing to a terminal: control characters become escapes."""
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in CONTROLS else one
        for one in text
    )


def check_secrets(uri: str) -> None:
    """Refuse an address with a secret in it, without repeating it.

    Addresses go into plans, reports and logs.
    """
    if public(uri) != uri:
        raise Refused(
            f"the address {public(uri)} holds a secret, which would end up in plans and reports;"
            " give it through the environment"
        )


def output_below(output: str, root: str, known: dict[str, str] | None = None) -> str:
    """The path of an output, unchanged, if it lies below a root.

    Refused: it does not, as written or after links are followed; a link inside the root that leads
    out of it is an escape as well. known: where folders lead, kept from call to call, because
    following the links of a million names takes minutes.
    """
    check_secrets(output)
    if "\0" in output or ".." in output.split("/"):
        raise Refused(
            f"the output {output!r} is not a plain path below {root}; name one without '..'"
        )
    remote = "://" in output or "://" in root
    if not (
        output.rstrip("/").startswith(root.rstrip("/") + "/")
        if remote
        else _below(output, root, known)
    ):
        raise Refused(
            f"the output {output} does not lie below {root} (links are followed); name a place"
            " inside it, or change --output-root"
        )
    return output


def output_outside(output: str, archive: str) -> None:
    """Refuse an output inside the archive of the sources, where the next night would enlarge it.

    output, archive: as normalize_root writes them.
    """
    remote = "://" in output or "://" in archive
    if f"{output}/".startswith(f"{archive}/") or (
        not remote
        and (_below(output, archive) or os.path.realpath(output) == os.path.realpath(archive))
    ):
        raise Refused(
            f"the output {output} lies inside the archive {archive}, which would be enlarged again;"
            " choose a place outside it"
        )


def check_lasting(path: str, name: str) -> None:
    """Refuse to write into a working directory that Ray unpacked, where results would be deleted.

    name: of the option or column that holds the path, for the sentence.
    """
    local = path.removeprefix("file://")
    if "://" not in local and UNPACKED in f"{(whole := os.path.abspath(local))}/":
        raise Refused(
            f"{name} {path} lies in {os.path.dirname(whole)}, Ray's own copy of the job's folder,"
            " which it deletes later; give an absolute path on a disk that stays"
        )


def check_source(source: str, roots: Sequence[str]) -> None:
    """Refuse a source that lies below none of the roots, and a link that leads nowhere.

    The source must lie below a root as written and after links are followed.
    roots: as normalize_root writes them; none: everything may be read.
    """
    check_secrets(source)
    path = source.removeprefix("file://")
    if "://" not in path and os.path.islink(path) and not os.path.exists(path):
        raise Refused(
            f"the source {source} is a link that leads nowhere (to {os.readlink(path)}); correct"
            " the link, or remove it"
        )
    if not roots:
        return
    if ".." not in path.split("/"):
        if "://" in path:
            if any(path.startswith(root.rstrip("/") + "/") for root in roots):
                return
        elif any("://" not in root and _below(path, root) for root in roots):
            return
    raise Refused(
        f"the source {source} does not lie below {' or '.join(roots)} after links are followed; add"
        " its folder with --source-root"
    )


def _below(path: str, root: str, known: dict[str, str] | None = None) -> bool:
    """Whether a local path lies below a folder once links are followed; the folder itself not."""
    known = {} if known is None else known

    def lead(folder: str) -> str:
        if folder not in known:
            known[folder] = os.path.realpath(folder)
        return known[folder]

    folder, name = os.path.split(path)
    here = (
        os.path.realpath(path)
        if name in ("", ".", "..") or os.path.islink(path)
        else os.path.join(lead(folder), name)
    )
    top = lead(root)
    return here != top and os.path.commonpath([here, top]) == top
