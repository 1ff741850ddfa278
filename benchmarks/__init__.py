"""What the provider costs, measured: ``python -m benchmarks`` prints one JSON line per result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """One measured number; ``target`` is what is promised, None where nothing is."""

    name: str
    value: float
    unit: str
    target: str | None

    def __str__(self) -> str:
        return json.dumps(self._asdict())


def remark(text: str) -> None:
    """Tell a person, on stderr, what lies behind a number."""
    print(f"  {text}", file=sys.stderr, flush=True)


def load() -> str:
    """Return how busy the machine is, without which a time says little."""
    return f"load average {os.getloadavg()[0]:.1f}"


def peak_mb() -> float:
    """Return the largest resident size this process had. Not ``ru_maxrss``: that counts the parent's size at the fork as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
