"""What a run tells the person who watches it: phases, progress lines, and how numbers are written."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .copier import Progress

PROGRESS_SECONDS = 5.0


class Reporter:
    """Writes to a logger; a progress line at most every five seconds."""

    def __init__(self, log: Any = None) -> None:
        self.log = log or logging.getLogger("airflow_provider_milvus_backup")
        self._last = time.monotonic()

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Mark what the lines inside belong to."""
        self.log.info("%s", title)
        yield

    @contextlib.contextmanager
    def part(self, title: str) -> Iterator[None]:  # noqa: ARG002 (for reporters that count seconds)
        """Mark a part of a phase; its lines stay among those of the phase."""
        yield

    def line(self, text: str) -> None:
        """Write one line."""
        self.log.info("%s", text)

    def warn(self, text: str) -> None:
        """Write one line that needs somebody's attention."""
        self.log.warning("%s", text)

    def copying(self, progress: Progress) -> None:
        """Write how far a copy is, unless the last such line is younger than five seconds."""
        self.progress(copy_line(progress))

    def progress(self, text: str) -> None:
        """Write a line that the next one replaces in the reader's interest; too early ones are dropped."""
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS:
            self._last = now
            self.line(text)


def copy_line(progress: Progress) -> str:
    """Return ``copied 1,234 / 5,678 objects, 12.3 / 40.1 GiB, 512 MiB/s, about 56 s left``."""
    seconds = max(progress.seconds, 1e-9)
    rate = progress.bytes / seconds
    left = ""
    if progress.objects and progress.objects < progress.total_objects:
        by_bytes = (progress.total_bytes - progress.bytes) / rate if rate else 0.0
        by_objects = (progress.total_objects - progress.objects) * seconds / progress.objects
        left = f", about {duration(max(by_bytes, by_objects))} left"
    return (
        f"copied {progress.objects:,} / {progress.total_objects:,} objects, "
        f"{sizes(progress.bytes, progress.total_bytes)}, {size(rate)}/s{left}"
    )


def sizes(part: float, whole: float) -> str:
    """Return ``12.3 / 40.1 GiB``: both in the unit of the whole."""
    factor, unit = _unit(whole)
    return f"{_number(part / factor)} / {_number(whole / factor)} {unit}"


def size(count: float) -> str:
    """Return ``12.3 GiB``."""
    factor, unit = _unit(count)
    return f"{_number(count / factor)} {unit}"


def duration(seconds: float) -> str:
    """Return ``4.2 s``, ``56 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def counted(count: int, noun: str) -> str:
    """Return ``1 segment`` or ``2,000 segments``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(ids: Sequence[object]) -> str:
    """Return ``1, 2, 3``, with at most ten of them."""
    return ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    """Return the lines of a table: the first ``names`` columns left, the others right aligned."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = []
    for row in (headings, ["-" * width for width in widths], *rows):
        cells = [cell.ljust(width) if i < names else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _unit(count: float) -> tuple[float, str]:
    factor = 1.0
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 * factor:
            return factor, unit
        factor *= 1024
    return factor, "TiB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
