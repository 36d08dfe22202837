"""Write docs/api.md from the docstrings of the public names: `make docs`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import tierscale

PAGE = Path(__file__).with_name("api.md")
HEAD = """# The Python API

What a program may rely on: the names of `import tierscale`. All else may change with any version.
This page is made from their docstrings by `make docs`; change it there.
"""
# Chapters of the page; names that none of them lists come last.
CHAPTERS = {
    "Enlarge": ("upscale_array", "upscale_dataset", "Options", "Manifest"),
    "Policies": ("Adaptive", "Budget", "MaxLoss", "Deadline", "Threshold", "Full", "Light"),
    "Networks": ("load_network",),
    "Errors": ("Refused", "Damaged", "Interrupted"),
}
# What a signature's text says otherwise on the page.
SHORTER = (
    (re.compile(r"\b(?:tierscale|collections|typing|fractions|pathlib)(?:\.\w+)*\.(?=\w)"), ""),
    (re.compile(r"\bpyarrow\.lib\."), "pyarrow."),
    (re.compile(r"<function (\w+) at \w+>"), r"\1"),
    (re.compile(r"<factory>"), "..."),
    (re.compile(r"Fraction\((\d+), 1\)"), r"Fraction(\1)"),
    # Annotations of names that are not imported at run time, or do not exist yet.
    (re.compile(r"(->|\w:) \"([\w.,| \[\]]+)\"(?=$| =)"), r"\1 \2"),
)
WIDTH = 100


def page() -> str:
    """The text of the page."""
    listed = {name for names in CHAPTERS.values() for name in names}
    others = tuple(name for name in tierscale.__all__ if name not in listed)
    parts = [HEAD]
    for title, names in {**CHAPTERS, "Others": others}.items():
        public = [name for name in names if name in tierscale.__all__]
        if public:
            parts += [f"## {title}\n", *(entry(name) for name in public)]
    return "\n".join(parts)


def entry(name: str) -> str:
    """The part of the page for one public name."""
    value = getattr(tierscale, name)
    if not callable(value):
        return f"### `{name}`\n\nThe version of the package, such as `0.2.0`.\n"
    lines = [f"### `{name}`\n"]
    if not (inspect.isclass(value) and issubclass(value, BaseException)):
        lines.append(f"```python\n{signature(name, value)}\n```\n")
    lines.append(f"{inspect.getdoc(value)}\n")
    if inspect.isclass(value):
        lines += [f"{line}\n" for line in members(value)]
    return "\n".join(lines)


def members(kind: type) -> Iterator[str]:
    """The public methods of a class, one paragraph each."""
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        call = getattr(kind, name) if isinstance(member, staticmethod | classmethod) else function
        shown = signature(f"{kind.__name__}.{name}", call)
        yield f"```python\n{shown}\n```\n\n{inspect.getdoc(function)}"


def signature(name: str, value: object) -> str:
    """The call of a function or class, on one line where it fits, else a parameter a line."""
    if not callable(value):
        raise TypeError(f"{name} cannot be called")
    found = inspect.signature(value)
    parameters = [one for one in found.parameters.values() if one.name != "self"]
    if inspect.isclass(value):
        found = found.replace(return_annotation=inspect.Signature.empty)
    whole = shortened(f"{name}{found.replace(parameters=parameters)}")
    if len(whole) <= WIDTH:
        return whole
    texts, keyword_only = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            texts.append("*")
            keyword_only = True
        texts.append(shortened(str(one)))
    tail = whole[whole.rindex(")") :]
    return "\n".join([f"{name}(", *(f"    {text}," for text in texts), tail])


def shortened(text: str) -> str:
    """A signature, or a part of one, as the page shows it."""
    text = text.replace("'", '"')
    for pattern, instead in SHORTER:
        text = pattern.sub(instead, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE} is written")
