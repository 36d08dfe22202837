"""The files of the zoo: weights that never change, and names that stand for the newest of them.

    NAME.json                     the card; its "weights" is the SHA-256 of the newest weights
    NAME.DIGEST.safetensors       weights; DIGEST is the beginning of their SHA-256
    NAME.DIGEST.efforts.json      what their control costs, where they have one
    SHA256SUMS                    all weights that were ever shipped

A stored plan names weights by their digest. So older ones stay, and none is ever changed: an output
that was begun with them can be finished and healed by every later version. Scouts and tables of
efforts may change: a stored plan keeps what they said.

    python -m tierscale.models.weights NAME FILE.safetensors

ships trained weights under a name, with the card and the table that lie beside them.
"""

import argparse
import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

from tierscale.models.contract.checkpoints import digest_file, read_checkpoint, write_whole
from tierscale.models.contract.efforts import read_efforts, table_path

ZOO = Path(__file__).parent / "zoo"
SUMS = "SHA256SUMS"
# Hexadecimal digits of a digest in the name of a file.
DIGITS = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_WEIGHTS = re.compile(rf"({_NAME.pattern})\.([0-9a-f]{{{DIGITS}}})\.safetensors")


def networks() -> list[str]:
    """Names of networks in the zoo, in order."""
    found = (_WEIGHTS.fullmatch(path.name) for path in ZOO.glob("*.safetensors"))
    return sorted({match[1] for match in found if match})


def names() -> list[str]:
    """What is known by name: bicubic and the networks of the zoo."""
    return ["bicubic", *networks()]


def card(name: str) -> dict[str, Any]:
    """What the card of a name says, or the one beside file:PATH; empty where there is none."""
    path = card_path(name)
    return json.loads(path.read_text()) if path.is_file() else {}


def card_path(name: str) -> Path:
    """Where the card of a name lies, or that of file:PATH, if there is one."""
    base, _ = parse_turns(name)
    if base.startswith("file:"):
        return Path(base.removeprefix("file:")).with_suffix(".json")
    return ZOO / f"{base}.json"


def newest(name: str) -> str:
    """SHA-256, hex, of the weights that a name stands for."""
    return str(card(name)["weights"])


def stored(name: str) -> list[str]:
    """SHA-256, hex, of all weights that a name ever stood for and that are here."""
    files = ((_WEIGHTS.fullmatch(file), digest) for file, digest in shipped().items())
    return [
        digest
        for match, digest in files
        if match and match[1] == name and weights_path(name, digest).is_file()
    ]


def weights_path(name: str, digest: str) -> Path:
    """Where the weights of a name with this SHA-256 lie, if they are here."""
    return ZOO / f"{name}.{digest[:DIGITS]}.safetensors"


def parse_turns(name: str) -> tuple[str, int]:
    """The network of NAME+8 and how often it is run; 1 where nothing of the kind is written.

    The name of a file may end like that too.
    """
    base, plus, count = name.rpartition("+")
    turned = plus and count.isdecimal() and not Path(name.removeprefix("file:")).is_file()
    return (base, int(count)) if turned else (name, 1)


def locate(name: str, weights: str | None = None) -> Path:
    """The checkpoint of file:PATH or a zoo name, +8 or not: the newest, or that of a SHA-256, hex.

    How often it is run does not matter. ValueError: there is no such file; the known names are
    listed.
    """
    name, _ = parse_turns(name)
    if name.startswith("file:"):
        path = Path(name.removeprefix("file:")).expanduser()
        if not path.is_file():
            raise ValueError(
                f"there is no file {path}; give the path of a network's .pth or .safetensors file"
            )
        return path
    if name == "bicubic":
        raise ValueError("bicubic has no weights and no control; name a network")
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        meant = f"; did you mean {' or '.join(near)}?" if near else "; or give file:PATH"
        raise ValueError(f"there is no upscaler {name!r}; known are {', '.join(known)}{meant}")
    path = weights_path(name, weights or newest(name))
    if not path.is_file():
        raise ValueError(
            f"the weights {path.name.split('.')[1]} of {name} are not in this version of tierscale;"
            " install the version that made the plan, or a newer one"
        )
    return path


def shipped() -> dict[str, str]:
    """SHA-256, hex, of all weights that were ever shipped, by the names of their files."""
    lines = (ZOO / SUMS).read_text().splitlines()
    return {file: digest for digest, file in (line.split("  ", 1) for line in lines)}


def ship(name: str, file: Path) -> Path:
    """Put weights into the zoo as the newest of a name; where they lie now.

    The card beside `file` becomes that of the name, and its table of efforts is taken along.
    ValueError: no such name can be, or `file` is no checkpoint of ours.
    """
    if not _NAME.fullmatch(name) or name == "bicubic" or name.startswith("kind-"):
        raise ValueError(
            f"{name!r} cannot be the name of a network; write small letters, digits and hyphens,"
            " such as edsr-x4"
        )
    read_checkpoint(file)
    digest = digest_file(file)
    path, own, table = weights_path(name, digest), file.with_suffix(".json"), table_path(file)
    read_efforts(file, digest)  # a table that was measured with other weights is refused
    about = json.loads(own.read_text()) if own.is_file() else {}
    write_whole(path, file.read_bytes())
    if table.is_file():
        write_whole(table_path(path), table.read_bytes())
    sums = shipped() | {path.name: digest}
    lines = [f"{digest}  {file}\n" for file, digest in sorted(sums.items())]
    write_whole(ZOO / SUMS, "".join(lines).encode())
    text = json.dumps({"name": name, "weights": digest, **_without(about)}, indent=2)
    write_whole(ZOO / f"{name}.json", f"{text}\n".encode())
    return path


def _without(about: dict[str, Any]) -> dict[str, Any]:
    """A card without what ship() says itself."""
    return {key: value for key, value in about.items() if key not in ("name", "weights")}


def main(arguments: list[str] | None = None) -> int:
    """Ship weights; 2 where they cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tierscale.models.weights",
        description="Ship trained weights as the newest of a name; the older ones stay.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="such as edsr-x4")
    parser.add_argument("file", type=Path, help="checkpoint that tierscale train wrote")
    options = parser.parse_args(arguments)
    try:
        path = ship(options.name, options.file)
    except ValueError as error:
        print(f"weights: {error}", file=sys.stderr)
        return 2
    print(f"{options.name} stands for {path} now; measure its card again")
    print("and write the catalogue anew: python -m tierscale.models.catalogue")
    return 0


if __name__ == "__main__":
    sys.exit(main())
