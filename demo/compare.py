"""Compare two collections row by row: pure, so that a test can prove that it notices what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
#: The rows of each partition by primary key.
Rows = Mapping[str, Mapping[Any, Row]]

_MISSING = object()


def differences(original: Rows, restored: Rows) -> Iterator[str]:
    """Yield one line for each partition, row and field that is not the same on both sides; nothing when all is identical.

    A row in another partition is missing from its own and too much in the other, so it is never overlooked.
    """
    for partition in sorted({*original, *restored}):
        if partition not in restored:
            yield f"partition {partition}: missing"
        elif partition not in original:
            yield f"partition {partition}: too much"
        else:
            yield from (f"partition {partition}, {line}" for line in _in_partition(original[partition], restored[partition]))


def count(rows: Rows) -> int:
    """Return how many rows there are in all partitions."""
    return sum(len(partition) for partition in rows.values())


def _in_partition(original: Mapping[Any, Row], restored: Mapping[Any, Row]) -> Iterator[str]:
    for key in sorted({*original, *restored}):
        if key not in restored:
            yield f"row {key}: missing"
        elif key not in original:
            yield f"row {key}: too much"
        else:
            yield from (f"row {key}, {line}" for line in _in_row(original[key], restored[key]))


def _in_row(original: Row, restored: Row) -> Iterator[str]:
    for name in sorted({*original, *restored}):
        before, after = original.get(name, _MISSING), restored.get(name, _MISSING)
        if type(before) is not type(after) or _exact(before) != _exact(after):
            yield f"field {name}: {_short(before)} became {_short(after)}"


def _exact(value: object) -> str:
    """Return a text that differs where values do, also 1, 1.0 and True, or 0.0 and -0.0, which Python calls equal at any depth."""
    return json.dumps(value, sort_keys=True, default=repr)


def _short(value: object) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
