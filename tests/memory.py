"""What a process took of memory, for tests that run one of their own."""

from pathlib import Path


def peak() -> int:
    """The most bytes this process has held since it was started.

    Not ru_maxrss: a new process inherits that figure from the one that started it.
    """
    status = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return next(int(line[1]) * 1024 for line in status if line[0] == "VmHWM:")
