"""What stands between a command and its user: output streams that do not break, and the last line of defence."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.core import escape, supervise
from benchmark.core.progress import LEVEL, QUIET, VERBOSE

DEBUG = "DDBENCH_DEBUG"  # environment variable: what --debug sets, for workers too


class _Device(io.FileIO):
    """File descriptor 1 or 2. A reader that left (``| head``) takes nothing more and stops nothing; another fault (a
    full disk) is kept until the end in ``fault``: output is lost then, work is not."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
        except OSError as error:
            self.fault = self.fault or error
        return len(data)


class _Text(io.TextIOWrapper):
    """Text in the locale's encoding: what that does not have becomes ``?``; control characters are shown."""

    def write(self, text: str) -> int:
        super().write(escape.terminal(text))
        return len(text)


def open_streams() -> None:
    """Put `_Device` and `_Text` under ``sys.stdout`` and ``sys.stderr`` where these are the process's own."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # was closed when the process began: no other file may get its number
            with contextlib.suppress(OSError):
                while (opened := os.open(os.devnull, os.O_RDWR)) < number:
                    pass
                if opened > number:
                    os.close(opened)
        elif stream is not getattr(sys, f"__{name}__") or not _is(stream, number):
            continue
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if encoding.lower() in ("ascii", "ansi_x3.4-1968", "us-ascii", "646"):
            encoding = "utf-8"  # the C locale says nothing of the terminal; Python's own choice where it coerces it
        if stream is not None:
            stream.flush()
        device = _Device(number, "w", closefd=False)
        lines = number == 2 or device.isatty()
        raw = io.BufferedWriter(device)
        made = _Text(raw, encoding=encoding, errors="replace", line_buffering=lines, write_through=number == 2)
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _is(stream: Any, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def catch_threads(debug: bool) -> None:
    """An error in a thread is one line and a log as well."""

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
            name = arguments.thread.name if arguments.thread else "?"
            unexpected(arguments.exc_value, debug, f"in the thread {name}: ")

    threading.excepthook = hook


def unexpected(error: BaseException, debug: bool, where: str = "") -> None:
    """Say in one line what was not foreseen and where its traceback lies; with ``debug`` print it."""
    first = next(iter(str(error).splitlines()), "")[:300]
    plugin = plugin_at_fault(error)
    what = f"{where}{plugin}{type(error).__name__}" + (f": {first}" if first else "")
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if debug:
        print(text, file=sys.stderr)
    log = write_log(text)
    kept = f"traceback: {log}; " if log else ""
    tell = "tell the plug-in's authors" if plugin else "please report it"
    print(f"ddbench: unexpected error: {what} ({kept}--debug prints it; {tell})", file=sys.stderr)


def plugin_at_fault(error: BaseException) -> str:
    """``in the plug-in NAME, FUNCTION:`` where the code of another distribution raised it or called what did."""
    from benchmark.plugins import others

    known = others()
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top in known:
            return f"in the plug-in {known[top]}, {frame.f_code.co_name}: "
    return ""


def write_log(text: str) -> Path | None:
    """A new private file with the traceback and the command, in the store or the system's temporary folder."""
    head = f"ddbench {__version__}, Python {sys.version.split()[0]}\n{' '.join(sys.argv)}\n\n"
    content = (head + text).encode("utf-8", "backslashreplace")
    for folder in (_store_logs, lambda: Path(tempfile.gettempdir())):
        try:
            place = folder()
            place.mkdir(parents=True, exist_ok=True)
            name = f"ddbench-{time.strftime('%Y%m%d-%H%M%S')}-"
            descriptor, path = tempfile.mkstemp(prefix=name, suffix=".log", dir=place)  # mode 600, a new name
            with open(descriptor, "wb") as file:
                file.write(content)
            return Path(path)
        except Exception:  # noqa: BLE001 - the last line of defence must not fall
            continue
    return None


def _store_logs() -> Path:
    from benchmark.core.store import default_cache

    return default_cache() / "errors"


def leave(code: int) -> None:
    """End the process with this code, whatever a plug-in left running; a fault of the output streams is said."""
    own = isinstance(sys.stdout, _Text)  # a process of its own, not a test that calls `main`
    if own:
        with contextlib.suppress(ValueError):  # in another thread than the main one
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a late Ctrl-C changes nothing
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        fault = None
        try:
            stream.flush()
            fault = getattr(getattr(stream.buffer, "raw", None), "fault", None)
        except (OSError, ValueError, AttributeError) as error:
            fault = error if isinstance(error, OSError) else None
        if fault is not None and name == "stdout":
            with contextlib.suppress(OSError, ValueError, AttributeError):
                reason = (fault.strerror or str(fault)).lower()
                print(f"ddbench: error: the output could not be written: {reason}", file=sys.stderr)
            code = code or 1
    supervise.finished()
    left = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon and not _pooled(t)]
    if own and left and threading.current_thread() is threading.main_thread():
        names = ", ".join(t.name for t in left)
        print(f"ddbench: ended although a thread still runs: {names}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _pooled(thread: threading.Thread) -> bool:
    return getattr(getattr(thread, "_target", None), "__module__", "") == "concurrent.futures.thread"


def verbosity(arguments: list[str]) -> list[str]:
    """The arguments without ``-v`` and ``-q`` (long forms too), which may stand anywhere before ``--``.

    What they ask for goes into the environment, so that worker processes have it as well.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    levels = {"-v": VERBOSE, "--verbose": VERBOSE, "-q": QUIET, "--quiet": QUIET}
    asked = [levels[a] for a in arguments[:end] if a in levels]
    if asked:
        os.environ[LEVEL] = asked[-1]
    return [a for i, a in enumerate(arguments) if i > end or a not in levels]


def wants_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which may stand anywhere before ``--``, and whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end] or os.environ.get(DEBUG, "") not in ("", "0")
    return [a for i, a in enumerate(arguments) if a != "--debug" or i > end], debug
