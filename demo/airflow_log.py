"""Of all that Airflow logs, what somebody who watches the demo wants to read: the provider's own lines, and errors."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from typing import Any

PROVIDER = "airflow_provider_milvus_backup"
#: What `dag.test()` says before a task, and while the task waits in the triggerer.
_TASK = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")
_DEFERRED = "[DAG TEST] running trigger in line"

Tell = Callable[[str, int], None]


def watch(tell: Tell) -> None:
    """Send the log of this process to ``tell(text, indentation)`` instead of the terminal. Airflow must be imported already."""
    import structlog

    def forward(_logger: Any, level: str, event: dict[str, Any]) -> str:
        for text, indent in _tidy(level, str(event.get("logger", "")), str(event.get("event", "")), event):
            tell(text, indent)
        raise structlog.DropEvent

    # In place, because loggers that exist already keep the list. The last one renders for the terminal.
    structlog.get_config()["processors"][-1] = forward

    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Handler(tell))


class _Handler(logging.Handler):
    """Forwards what libraries log past structlog."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        for text, indent in _tidy(record.levelname.lower(), record.name, record.getMessage(), {"exc_info": record.exc_info}):
            self._tell(text, indent)


def _tidy(level: str, logger: str, text: str, event: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the lines to show, and how far each is indented."""
    if started := _TASK.match(text):
        return [(f"task {started[1]}", 0)]
    if text == _DEFERRED:
        return [("deferred: the triggerer waits, no worker slot is taken", 1)]
    if level in {"error", "critical", "exception"}:
        return [(f"{level.upper()} {text}", 1), *_cause(event)]
    if PROVIDER not in logger or text == "::endgroup::":
        return []
    if text.startswith("::group::"):
        return [(text.removeprefix("::group::"), 1)]
    return [(f"WARNING {text}" if level == "warning" else text, 2)]


def _cause(event: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the exceptions of a logged error, the last one first; their tracebacks help nobody here."""
    info = sys.exc_info() if event.get("exc_info") is True else event.get("exc_info")
    error = info[1] if isinstance(info, tuple) else info
    lines: list[tuple[str, int]] = []
    while isinstance(error, BaseException):
        text = f"{type(error).__name__}: {error}"
        if not any(text in line for line, _ in lines):  # an error that only gives another one a new type repeats it
            lines.append((text, 2))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines
