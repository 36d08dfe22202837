"""How tierscale refuses, fails and stops; each error carries one sentence for whoever has to act.

The sentence says what, with its value; why not; what would do.
"""


class Refused(ValueError):
    """The request cannot work and nothing was done (exit code 2).

    Bad arguments, a missing or unsupported file, an image that does not fit.
    """


class Interrupted(Exception):
    """The work was asked to stop and has drained: what was begun is finished or removed."""


class Damaged(RuntimeError):
    """Work was begun and could not be finished (exit code 1).

    A broken source, a full disk, a checksum that differs.
    """


class Unreachable(Damaged):
    """A source could not be read because its disk or store failed; the image may be sound."""


class Unsettled(Refused):
    """The source is still being written: nothing is wrong with it, and nothing was done."""


class Held(Refused):
    """Another run is writing the same output: nothing is wrong with it, and nothing was done."""


class DiskFull(Damaged):
    """The disk that holds the results is full: every further image would fail as well."""


def one_line(error: object) -> str:
    """The text of an error in one line of at most 200 characters; its class where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
