"""The two ways in which tierscale says no.

Both carry one sentence for the person who has to act: what, with its value; why not; what would do.
"""


class Refused(ValueError):
    """What was asked cannot work, and nothing was done: bad arguments, missing or unsupported file, does not fit (exit code 2)."""


class Damaged(RuntimeError):
    """Work was begun and could not be finished: broken source, full disk, checksum mismatch (exit code 1)."""
