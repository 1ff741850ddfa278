"""What the demo prints: numbered sections, and lines that say when they happened."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STARTED = time.monotonic()


def elapsed() -> float:
    """Return the seconds since the start."""
    return time.monotonic() - _STARTED


def title(text: str) -> None:
    """Print the headline."""
    print(f"{text}\n{'=' * len(text)}", flush=True)


def section(text: str) -> None:
    """Print the heading of what comes next."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def line(text: str = "", indent: int = 0) -> None:
    """Print one line and when it happened."""
    print(f"{elapsed():6.1f} s  {'  ' * indent}{text}".rstrip(), flush=True)


def plain(text: str = "") -> None:
    """Print one line as it is."""
    print(text, flush=True)


class Interrupt:
    """Turns SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, so that every way to stop the demo cleans up.

    ``seen`` is for code that swallows the exception, as Airflow does inside a task.
    """

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Stop once: whoever is impatient must not interrupt the cleaning up."""
        if not self.seen:
            self.seen = True
            os.write(2, b"\nstopping\n")  # print() must not be called here: the signal may have come inside of one
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt when it has been raised before."""
        if self.seen:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handle the signals inside, and put back what handled them before."""
    interrupt = Interrupt()
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(main: Callable[[Interrupt], int]) -> int:
    """Run ``main`` and return its exit code; whatever stops it is said in one readable sentence."""
    with interruptible() as interrupt:
        try:
            return main(interrupt)
        except KeyboardInterrupt:
            print("stopped; nothing is left running", file=sys.stderr)
            return 130
        except Exception as error:  # noqa: BLE001 (a person reads this)
            if interrupt.seen:  # Ctrl-C reaches child processes too, and their end can be noticed first
                print("stopped; nothing is left running", file=sys.stderr)
                return 130
            print(f"\nThe demo failed: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
