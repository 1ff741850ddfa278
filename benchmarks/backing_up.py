"""backup_overhead: the seconds a backup of one small collection takes beyond Milvus's own flush, on a real Milvus 2.3.5."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.survey import Survey

from . import Result, load, remark
from .collection import Quiet
from .real import cluster, rows

RUNS = 4
FLUSH = Survey.flush


class Timed:
    """Notes how long Milvus took to flush."""

    flushing = 0.0

    def flush(self, survey: Survey, names: Any) -> Any:
        started = time.monotonic()
        try:
            return FLUSH(survey, names)
        finally:
            self.flushing = time.monotonic() - started


def run() -> Iterator[Result]:
    overheads, timed = [], Timed()
    Survey.flush = lambda survey, names: timed.flush(survey, names)  # type: ignore[method-assign]  # noqa: PLW0108 (as a method it needs a survey)
    with cluster() as (settings, client):
        client.create_collection("small", dimension=32)
        for number in range(RUNS + 1):
            client.insert("small", rows(1000 * number, 1000, 32))
            backup = BackupRun.open(settings, Quiet())
            started = time.monotonic()
            summary = backup.backup(f"backup_{number}", "small")
            seconds = time.monotonic() - started
            objects = summary.to_dict()["objects"]
            remark(f"{seconds:.2f} s, of these {timed.flushing:.2f} s flush; {objects} objects, {load()}")
            overheads.append(seconds - timed.flushing)
            backup.server.close()
    # The first run imports pymilvus, grpc and obstore; a worker has done that once.
    yield Result("backup_overhead", round(min(overheads[1:]), 3), "s", "<= 1.5")
