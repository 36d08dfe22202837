"""How a command ends: what it says, its exit code, and the signals that ask it to stop."""

import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import click

from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.path_policy import printable

CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Ended(Exception):
    """The command is over with this exit code; what there was to say has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Draining:
    """A context in which the first SIGINT or SIGTERM becomes a wish to stop; a second one ends the
    process as usual.

    stop: set by the first signal. code: the exit code that goes with it.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.code = 0
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """Take the signals; once more after Ray has started, which takes SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread() and not self.stop.is_set():
            for number in CODES:
                earlier = signal.signal(number, self._note)
                self._before.setdefault(number, earlier)

    def _note(self, number: int, frame: Any) -> None:
        self.code = CODES[number]
        self.stop.set()
        signal.signal(number, signal.SIG_DFL)
        say("stopping: what is in flight is finished first (once more to stop at once)")

    def watched(self, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
        """Progress that ends what reports it with Interrupted after a signal, for work that leaves
        nothing behind.
        """

        def told(stage: str, done: int, total: int) -> None:
            if self.stop.is_set():
                raise Interrupted
            progress(stage, done, total)

        return told

    def end(self, as_json: bool, content: dict[str, Any], text: str) -> Ended:
        """Say how to go on after a drain; what the command is to raise."""
        emit(as_json, {**content, "status": "interrupted", "error": text}, "")
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


def emit(as_json: bool, content: dict[str, Any], text: str) -> None:
    """Print a result: one JSON object, or text for a person, in one line or several, if there is
    any.
    """
    if as_json or text:
        print(
            json.dumps(content) if as_json else "\n".join(map(printable, text.split("\n"))),
            flush=True,
        )


def say(text: str) -> None:
    """Print a line on stderr; nothing that names hold can break it or reach the terminal."""
    print(printable(text), file=sys.stderr, flush=True)


def run_command(command: click.Command, given: list[str]) -> None:
    """Run a click command and end the process as the table of exit codes says."""
    as_json, debug = "--json" in given, "--debug" in given
    try:
        code = command.main(given, prog_name="tierscale", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(2)
    except Ended as ended:
        sys.exit(ended.code)
    except (Refused, click.UsageError) as error:
        fail(
            error.format_message() if isinstance(error, click.UsageError) else str(error),
            2,
            as_json,
            debug,
        )
    except (click.Abort, KeyboardInterrupt):
        fail("stopped; the same command again goes on from what is done", 130, as_json, debug)
    except Damaged as error:
        fail(str(error), 1, as_json, debug)
    except OSError as error:
        failure = storage_failure(str(error.filename or "a file"), error)
        fail(str(failure), 2 if isinstance(failure, Refused) else 1, as_json, debug)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        fail(f"{type(error).__name__}: {text}; --debug shows where", 1, as_json, debug)


def fail(text: str, code: int, as_json: bool, debug: bool) -> None:
    """Say why in one sentence and end."""
    if debug:
        traceback.print_exc()
    say(f"tierscale: {text}")
    if as_json:
        print(
            json.dumps(
                {"status": "failed", "error": text, **({"refused": text} if code == 2 else {})}
            ),
            flush=True,
        )
    sys.exit(code)
