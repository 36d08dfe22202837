"""The one way to the terminal: every line that any command prints is written here, escaped.

Names, addresses and messages of libraries come from strangers. A control character in them must
not move the cursor, change colours or begin a line of its own.
"""

import json
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from tierscale.pipeline.storage.path_policy import printable


def write(lines: str | Iterable[str], error: bool = False) -> None:
    """Print one line or several, each escaped. error: on stderr, not stdout."""
    stream = sys.stderr if error else sys.stdout
    for line in [lines] if isinstance(lines, str) else lines:
        print(printable(line), file=stream, flush=True)


def say(text: str) -> None:
    """Print one line on stderr."""
    write(text, error=True)


def write_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; JSON escapes all control characters but DEL by itself."""
    print(json.dumps(content).replace("\x7f", "\\u007f"), flush=True)


def emit(as_json: bool, content: Mapping[str, Any], lines: str | Iterable[str]) -> None:
    """Print a result: one JSON object, or lines for a person, if there are any.

    A text is one line; several lines are passed as a list, so that a name can never add one.
    """
    if as_json:
        write_json(content)
    elif lines:
        write(lines)


def escaped(value: Any) -> Any:
    """A structure of lists and mappings with all its texts escaped, to build longer texts from."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {escaped(key): escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(one) for one in value]
    return value


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class LogLines(logging.Handler):
    """Prints log records on stderr, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        say(self.format(record))


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"{filename}:{lineno}: {category.__name__}: {message}")


def take_logs(debug: bool) -> None:
    """Print our log warnings escaped; warnings of libraries are printed with `debug`, else dropped.

    Both would otherwise reach the terminal raw, and in two lines.
    """
    logger = logging.getLogger("tierscale")
    if not any(isinstance(handler, LogLines) for handler in logger.handlers):
        logger.addHandler(LogLines(logging.WARNING))
    warnings.showwarning = _say_warning if debug else _drop_warning


def _drop_warning(*warning: object, **more: object) -> None:
    pass
