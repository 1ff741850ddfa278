"""rest_restore_*: 1,000 segments through REST into a contract server of Milvus 2.6, in jobs of 256 segments and in jobs of one.

What counts is the wall time of the whole restore beyond what the server needs by itself, which is measured by importing the same files into
its model without any client.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.plan import SKIP_FLUSH
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.settings import MilvusAddress, Settings
from demo import servers

from . import Result, load, remark
from .collection import BUCKET, Quiet, location
from .contract import Remote, contract_process
from .copying import cpu_seconds

VERSION, SEGMENTS, ROWS, TICK = "2.6.20", 1000, 10, 0.5
NAME = ("default", "coll")
#: What a restore over REST may take beyond the server's own time.
TARGET = "<= 5"


def run() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as directory, servers.s3_server(Path(directory)) as s3:
        s3.create_bucket(BUCKET)
        keys = (s3.access_key, s3.secret_key)
        own, backups = (location(s3.endpoint_url, keys, root) for root in ("files", "backup"))
        with contract_process(VERSION, s3, BUCKET) as milvus:
            milvus.call(fill)
            settings = Settings(MilvusAddress("127.0.0.1", milvus.port), own, backups)
            backup = BackupRun.open(settings, Quiet(), gc_pause="off")
            assert backup.backup("my_backup", "coll", SKIP_FLUSH).to_dict()["rows"] == SEGMENTS * ROWS
            backup.server.close()
            few = _restore(milvus, settings, "_256")
            many = _restore(milvus, replace(settings, max_job_bytes=1), "_1")
    yield Result("rest_restore_requests", few["requests"], "requests", "<= 100")
    yield Result("rest_restore_beyond", few["beyond"], "s", TARGET)
    yield Result("rest_restore_1000_jobs_requests", many["requests"], "requests", None)
    yield Result("rest_restore_1000_jobs_beyond", many["beyond"], "s", None)


def _restore(milvus: Remote, settings: Settings, suffix: str) -> dict[str, float]:
    milvus.call(forget)
    restore = RestoreRun.open(settings, Quiet(), resumable=False)
    started, cpu = time.monotonic(), cpu_seconds()
    try:
        state = restore.start("my_backup", f"restore{suffix}", RestoreOptions(suffix=suffix))
        submitted = time.monotonic() - started
        restore.wait(state, 5)
        imported = time.monotonic() - started
        summary = restore.finish(state)
    finally:
        restore.close()
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    requests = milvus.call(counted)
    jobs = [job.files for _, job in state.jobs()]
    # The machine may be busier now than it was then: the better of two runs.
    own = min(milvus.call(import_alone, jobs, f"own{suffix}_{number}") for number in range(2))
    remark(
        f"{summary['jobs']} jobs, {summary['rows']:,} rows: {seconds:.1f} s, {own:.1f} s of them the server's own; submitted after "
        f"{submitted:.1f} s, imported after {imported:.1f} s; {cpu:.1f} s of CPU; requests {requests}; {load()}"
    )
    assert summary["rows"] == SEGMENTS * ROWS
    return {"requests": sum(requests.values()), "beyond": round(max(0.0, seconds - own), 2)}


def fill(server: Any) -> None:
    """Put the segments into a new collection."""
    from tests.contract import shapes

    server.model.phase_seconds = TICK
    server.model.create_collection(NAME, shapes.schema(NAME[1]), shards=1)
    numbers = itertools.count()
    for _ in range(SEGMENTS):
        server.model.insert(NAME, [shapes.row(number) for number in itertools.islice(numbers, ROWS)])
        server.model.flush(NAME)


def forget(server: Any) -> None:
    """Count requests from here on."""
    server.recorder.counts.clear()
    server.recorder.requests.clear()


def counted(server: Any) -> dict[str, int]:
    """Return how many requests of each name there were."""
    return dict(server.requests)


def import_alone(server: Any, jobs: Sequence[Sequence[Sequence[str]]], name: str) -> float:
    """Import without a client and return the seconds until all jobs have ended."""
    from tests.contract import scenes, shapes

    model, target = server.model, ("default", name)
    model.create_collection(target, shapes.schema(name), shards=1)
    started = time.monotonic()
    running = [model.import_job(target, files, scenes.options(model), "_default") for files in jobs]
    while not all(job.over for job in running):
        time.sleep(0.02)
        model.jobs_of(target)
    seconds = time.monotonic() - started
    assert model.row_count(target) == SEGMENTS * ROWS
    return seconds
