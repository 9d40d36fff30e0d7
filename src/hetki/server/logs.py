"""Logs: one line for each thing an operator should know, and in it nothing of any customer.

What a program of ours logs is said in full, but of faults and exceptions: their texts may show a value, so a
line has the place and the rule of a fault, and the type and the path of an exception. Of what libraries log
it has the place, and of uvicorn the sentence without what fills it.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType

from hetki.errors import Fault, HetkiError, Unavailable

OURS, SERVER = "hetki", "uvicorn"
#: The innermost calls of an exception, the exceptions behind it, and the faults of one error, in one line.
CALLS_MAX = 20
CAUSES_MAX = 4
FAULTS_MAX = 5

log = logging.getLogger("hetki.logs")


def set_up() -> None:
    """Send whatever this process has to say to standard error as lines of ours; a repeat changes nothing.

    Also what nobody caught: in a thread, in a finalizer, as a warning. For whole processes only.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a line that cannot be made would be shown with all that fills it
    threading.excepthook = _lost_in_thread
    sys.unraisablehook = _lost_in_finalizer


class Line(logging.Formatter):
    """A record as one line `level=... log=... key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a text with line breaks would be several."""
        told = f"level={record.levelname.lower()} log={record.name} {_text(record)}"
        if record.exc_info and record.exc_info[1] is not None:
            told += f" {path_of(record.exc_info[1])}"
        return " ".join(told.split())


def path_of(error: BaseException) -> str:
    """An exception without its text: types, and the calls that led there, the innermost first."""
    told: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(told) < CAUSES_MAX:
        told.append(f"error={type(cause).__name__} at={_calls(cause.__traceback__) or 'nowhere'}")
        cause = cause.__cause__ or cause.__context__
    return " from ".join(told)


def _text(record: logging.LogRecord) -> str:
    within = record.name.partition(".")[0]
    if within == OURS and isinstance(record.msg, str):
        given = record.args if isinstance(record.args, tuple) else ()
        return record.msg % tuple(without_values(each) for each in given)
    if within == SERVER and isinstance(record.msg, str):
        return record.msg
    return f"at={record.module}:{record.lineno}"


def without_values(given: object) -> object:
    """What fills a line of ours. Why something is unavailable is told: it is of a disk or a network."""
    if isinstance(given, Fault):
        return f"{given.where}: must be {given.must}"
    if isinstance(given, Unavailable):
        return given
    if isinstance(given, HetkiError):
        return "; ".join(str(without_values(fault)) for fault in given.faults[:FAULTS_MAX])
    if isinstance(given, OSError):
        return given.strerror or type(given).__name__
    return type(given).__name__ if isinstance(given, BaseException) else given


def _calls(trace: TracebackType | None) -> str:
    calls = []
    while trace is not None:
        calls.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return ",".join(calls[: -CALLS_MAX - 1 : -1])


def _lost_in_thread(lost: threading.ExceptHookArgs) -> None:
    if lost.exc_value is not None:
        log.error("thread=ended %s", path_of(lost.exc_value))


def _lost_in_finalizer(lost: sys.UnraisableHookArgs) -> None:
    if lost.exc_value is not None:
        log.error("finalizer=failed %s", path_of(lost.exc_value))
