"""The two ways in which tierscale says no, and the one in which it stops when it is told to.

The first two carry one sentence for the person who has to act: what, with its value; why not; what
would do.
"""


class Refused(ValueError):
    """What was asked cannot work, and nothing was done: bad arguments, missing or unsupported file,
    does not fit (exit code 2).
    """


class Interrupted(Exception):
    """The work was asked to stop and has drained: what was begun is finished and written, or taken
    away.
    """


class Damaged(RuntimeError):
    """Work was begun and could not be finished: broken source, full disk, checksum mismatch (exit
    code 1).
    """


class Held(Refused):
    """Another run is writing the same output: nothing is wrong with it, and nothing was done."""


class Full(Damaged):
    """The disk that takes the results is full: no image is to blame, and no other would fare
    better.
    """
