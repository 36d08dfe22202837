"""How a command ends: its exit code, its one sentence, and the signals that ask it to stop."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

import click

from tierscale.jobs.cli.terminal import emit, say, take_logs, write, write_json
from tierscale.pipeline.errors import Damaged, Interrupted, Refused

Progress = Callable[[str, int, int], None]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Ended(Exception):
    """The command is over with this exit code, and has printed all there is to say."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Draining:
    """A context in which the first SIGINT or SIGTERM asks the work to stop.

    A second signal ends the process as usual. stop: set by the first signal. code: the exit code
    that belongs to it, else 0.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.code = 0
        self._before: dict[signal.Signals, Any] = {}

    def arm(self) -> None:
        """Handle the signals; call again after Ray has started, which handles SIGTERM itself."""
        if threading.current_thread() is threading.main_thread() and not self.stop.is_set():
            for number in CODES:
                earlier = signal.signal(number, self._handle)
                self._before.setdefault(number, earlier)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.code = CODES[signal.Signals(number)]
        self.stop.set()
        signal.signal(number, signal.SIG_DFL)
        say("stopping: finishing what is in flight (signal again to stop at once)")

    def watched(self, progress: Progress) -> Progress:
        """Progress that raises Interrupted after a signal, for work that leaves nothing behind."""

        def report(stage: str, done: int, total: int) -> None:
            if self.stop.is_set():
                raise Interrupted
            progress(stage, done, total)

        return report

    def end(self, as_json: bool, content: Mapping[str, Any], text: str) -> Ended:
        """Say how to resume after a signal; what the command is to raise."""
        if as_json:
            emit(True, {**content, "status": "interrupted", "error": text}, "")
        say(text)
        return Ended(self.code)

    def __enter__(self) -> "Draining":
        self.arm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def run_command(command: click.Command, cli_args: Sequence[str], name: str = "tierscale") -> None:
    """Run a click command and end the process as the table of exit codes in docs/cli.md says.

    name: of the command, as --help shows it.
    """
    as_json, debug = "--json" in cli_args, "--debug" in cli_args
    take_logs(debug)
    try:
        code = command.main(list(cli_args), prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        write(error.format_message().split("\n"), error=True)
        sys.exit(2)
    except Ended as ended:
        sys.exit(ended.code)
    except Exception as error:
        _fail(error, as_json, debug)
    except KeyboardInterrupt as error:
        _fail(error, as_json, debug)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, as_json: bool, debug: bool) -> None:
    """Say why in one sentence, and end."""
    code, text = reason(error)
    if debug:
        write("".join(traceback.format_exception(error)).rstrip("\n").split("\n"), error=True)
    say(f"tierscale: {text}")
    if as_json:
        refused = {"refused": text} if code == 2 else {}
        write_json({"status": "failed", "error": text, **refused})
    sys.exit(code)


def _with_help(error: click.UsageError) -> str:
    """What is wrong with the arguments, and the command that says how they are written."""
    path = error.ctx.command_path if error.ctx else "tierscale"
    return f"{error.format_message().rstrip('.')}; see {path} --help"


def reason(error: BaseException) -> tuple[int, str]:
    """The exit code and the sentence for an error that ended a command."""
    if isinstance(error, click.UsageError):
        return 2, _with_help(error)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return 130, "stopped; run the same command again to resume"
    if isinstance(error, OSError):
        from tierscale.pipeline.storage.failures import storage_failure

        error = storage_failure(str(error.filename or "a file"), error)
    if isinstance(error, Refused):
        return 2, str(error)
    if isinstance(error, Damaged):
        return 1, str(error)
    text = " ".join(str(error).split())[:300]
    return 1, f"{type(error).__name__}: {text}; --debug shows where"
