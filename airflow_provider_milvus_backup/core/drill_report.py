"""What a drill has found: as ``provider/drill.json`` beside the backup, as small JSON for XCom, as lines of a log. Pure functions.

``drill.json`` is about the last drill of the backup that came to an end; one that was killed, or that found Milvus away, found out nothing:

=====================  ===============================================================================================================
``version``            1
``backup_id``          the id of the backup
``time``               when the drill ended, ISO 8601 with a zone
``ok``                 whether everything was as it should be, and in time
``seconds``            the recovery time: from choosing the backup to the last check
``max_seconds``        what was allowed, or null
``phases``             seconds by phase: ``plan``, ``create``, ``stage``, ``import``, ``load``, ``check``
``whole``              whether all collections of the backup were restored
``collections``        ``[{name, rows}]`` of what was restored, by its name in the backup, 1,000 at most
``collection_count``   how many these are in all
``checks``             how many checks there were
``failed``             ``[{collection, check, ok, expected, found}]`` of those that failed
``error``              why the restore itself failed, or an empty text
``server_version``     of the Milvus that it was restored into
``task``               who drilled, or an empty text
=====================  ===============================================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .catalog_entry import DRILLED_VERSION
from .drill_checks import CheckResult
from .report import counted, duration

#: Collections listed one by one at most, beside the backup and in XCom.
MAX_LISTED, MAX_RETURNED = 1000, 100


@dataclass(slots=True)
class DrillReport:
    """What one drill has found.

    :param seconds: by phase
    """

    backup_name: str
    backup_id: str
    max_seconds: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    #: Rows by collection, by its name in the backup.
    rows: dict[str, int] = field(default_factory=dict)
    results: list[CheckResult] = field(default_factory=list)
    whole: bool = False
    error: str = ""
    server_version: str = ""
    task: str = ""

    @property
    def total(self) -> float:
        """The recovery time in seconds."""
        return sum(self.seconds.values())

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if not result.ok]

    @property
    def late(self) -> float:
        """By how many seconds the recovery took too long; 0 when it did not."""
        return max(0.0, self.total - self.max_seconds) if self.max_seconds is not None and not self.error else 0.0

    @property
    def ok(self) -> bool:
        """Whether everything was as it should be, and in time."""
        return not (self.error or self.failed or self.late)

    def to_json(self, time: datetime) -> bytes:
        """Return the content of ``provider/drill.json``."""
        return json.dumps(
            {
                "version": DRILLED_VERSION,
                "backup_id": self.backup_id,
                "time": time.isoformat(timespec="seconds"),
                **self._common(MAX_LISTED),
                "failed": [result.to_dict() for result in self.failed],
                "error": self.error,
                "server_version": self.server_version,
                "task": self.task,
            }
        ).encode()

    def to_dict(self) -> dict[str, Any]:
        """Return what a task returns; at most 100 collections are listed one by one."""
        return {
            "backup_name": self.backup_name,
            "backup_id": self.backup_id,
            **self._common(MAX_RETURNED),
            "rows": sum(self.rows.values()),
            "server_version": self.server_version,
        }

    def _common(self, listed: int) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "seconds": round(self.total, 3),
            "max_seconds": self.max_seconds,
            "phases": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "whole": self.whole,
            "collection_count": len(self.rows),
            "collections": [{"name": name, "rows": rows} for name, rows in list(self.rows.items())[:listed]],
            "checks": len(self.results),
        }

    def line(self) -> str:
        """Return what was recovered, and how long each phase took; or that nothing was."""
        if self.error:
            return f"backup {self.backup_name!r} could not be recovered, which was clear after {duration(self.total)}: {self.error}"
        phases = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in self.seconds.items())
        return (
            f"recovered {counted(len(self.rows), 'collection')} with {sum(self.rows.values()):,} rows of backup {self.backup_name!r} in "
            f"{duration(self.total)} ({phases}); {len(self.results) - len(self.failed):,} of {counted(len(self.results), 'check')} passed"
        )

    def problem(self) -> str:
        """Return the message of the error that a drill fails with."""
        parts = [f"{result}" for result in self.failed[:20]]
        parts += [f"{len(self.failed) - 20:,} more checks"] if len(self.failed) > 20 else []
        if self.late and self.max_seconds is not None:
            parts.append(
                f"the recovery took {duration(self.total)}, which is {duration(self.late)} more than the {duration(self.max_seconds)} of "
                "max_seconds"
            )
        return f"the drill of backup {self.backup_name!r} failed: {'; '.join(parts)}. What it had restored is dropped again"
