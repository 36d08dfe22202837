"""Running a command in this process, and what every refusal has to look like."""

import pytest

from tierscale.jobs.cli.main import main

# Quick ways to enlarge.
FAST = ("--tiers", "bicubic", "--ray", "none")


def tierscale(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def check_refusal(result, code, *words):
    """Exit code, and one sentence on stderr with all the words; stdout is returned."""
    got, out, err = result
    lines = [line for line in err.splitlines() if line]
    assert got == code, err
    assert len(lines) == 1 and lines[0].startswith("tierscale: ") and "Traceback" not in err
    for word in words:
        assert word in lines[0]
    return out
