"""restore_16_segments: 16 segments x 2,000 rows x 128 dims on a real Milvus 2.3.5, from the first submit to the last import."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from airflow_provider_milvus_backup.core import imports
from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.meta import Index
from airflow_provider_milvus_backup.core.plan import SKIP_FLUSH
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.server import MilvusServer

from . import Result, load, remark
from .collection import Quiet
from .real import cluster, rows

SEGMENTS, ROWS, DIM = 16, 2000, 128
INDEX = Index("vector", "vector", "IVF_FLAT", {"index_type": "IVF_FLAT", "metric_type": "L2", "params": '{"nlist": 64}'})
RUNS = 2


class TimedServer(MilvusServer):
    """Notes when the first import job was submitted."""

    first_submit = 0.0

    def submit_import(self, *args: object, **kwargs: object) -> int:
        self.first_submit = self.first_submit or time.monotonic()
        return super().submit_import(*args, **kwargs)  # type: ignore[arg-type]


def _fill(client: Any) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection("coll", schema=schema)
    for number in range(SEGMENTS):
        client.insert("coll", rows(ROWS * number, ROWS, DIM))
        client.flush("coll")


def run() -> Iterator[Result]:
    seconds = []
    with cluster() as (settings, client):
        _fill(client)
        backup = BackupRun.open(settings, Quiet())
        plan = backup.plan("my_backup", "coll", SKIP_FLUSH)
        # Milvus compacts small segments as soon as they have an index, and fewer would make the figure too good: the index is in the
        # backup alone, and the import waits until it is built.
        plan.backup.collections[0].indexes.append(INDEX)
        backup.copy(plan)
        summary = backup.commit(plan).to_dict()
        counted = summary["collections"][0]["segments"]
        remark(f"{counted} segments, {summary['rows']:,} rows, {summary['bytes'] / 1e6:.1f} MB")
        assert counted == SEGMENTS
        for number in range(RUNS):
            restore = RestoreRun.open(settings, Quiet())
            restore.ends.server = server = TimedServer(settings.milvus)
            state = restore.start("my_backup", f"restore-{number}", RestoreOptions(suffix=f"_bak{number}"))
            pause = imports.FIRST_POLL
            while not restore.poll(state):
                time.sleep(pause)
                pause = imports.next_poll(pause, 10)
            seconds.append(time.monotonic() - server.first_submit)
            rows_back = restore.finish(state)["rows"]
            remark(f"{seconds[-1]:.2f} s, {sum(1 for _ in state.jobs())} jobs, {rows_back} rows, {load()}")
    yield Result("restore_16_segments", round(min(seconds), 2), "s", "<= 6")
