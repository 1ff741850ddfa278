"""A worker that dies by SIGKILL, at chosen moments: the next try goes on where it stopped, and the content is equal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from tests.airflow.dag_runs import context
from tests.airflow.gates import Gate, behind, milvus_proxy, s3_proxy
from tests.airflow.stack import PARTITIONS, Stack, in_environment

REPO = Path(__file__).parents[2]


@contextmanager
def worker(kind: str, options: dict[str, Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the first try in a process of its own, and kill it at the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.airflow.killed_task", kind, json.dumps(options)],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            alive = process.poll() is None
            process.kill()
            process.wait()
    assert alive, f"the try ended before it was killed:\n{log.read_text()}"
    assert process.returncode == -signal.SIGKILL


def until(happened: Callable[[], Any], process: subprocess.Popen[bytes] | None = None) -> None:
    """Return when something has happened; a process that is named must be alive until then."""
    deadline = time.monotonic() + 600
    while not happened():
        assert process is None or process.poll() is None, "the try ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def built(stack: Stack, name: str) -> list[str]:
    """Return what restores are building for a collection of this name."""
    return [other for other in stack.collections() if other.startswith(f"{name}__restore_")]


def jobs(name: str) -> int:
    """Return how many import jobs Milvus knows into a collection."""
    server = MilvusBackupHook().get_conn()
    try:
        return len(server.imports(CollectionName("default", name)))
    finally:
        server.close()


def test_a_backup_whose_worker_dies_while_it_copies_is_completed_by_the_next_try(connected: Stack, tmp_path: Path) -> None:
    options = {"task_id": "dies", "backup_name": "dies_copying", "collections": ["coll"], "backup_bucket": "backups"}
    with s3_proxy(connected) as s3, Gate("copy", 10).closed() as gate:
        s3.before = gate
        with in_environment(behind(connected, s3=s3).connections()), worker("backup", options, tmp_path / "log") as process:
            until(gate.reached.is_set, process)
        there = connected.keys("backups", "backup/dies_copying/binlogs/")
    assert 0 < len(there) < 10, "the rest is held back"
    assert "backup/dies_copying/meta/backup_meta.json" not in connected.keys("backups", "backup/dies_copying/")

    task = MilvusBackupOperator(**options)
    summary = task.execute(context(task, try_number=2))
    assert summary["rows"] == 1300
    MilvusBackupHook(backup_bucket="backups").restore("dies_copying", suffix="_from_dead", load="always")
    assert connected.rows("coll_from_dead") == connected.rows("coll")


@pytest.mark.parametrize("moment", ["submitting", "waiting"])
def test_a_restore_whose_worker_dies_is_completed_by_the_next_try_and_nothing_is_imported_twice(
    connected: Stack, wide: dict[Any, Any], tmp_path: Path, moment: str
) -> None:
    name = f"wide_dies_{moment}"
    options = {"task_id": f"dies_{moment}", "backup_name": "wide", "backup_bucket": "backups", "suffix": name[4:], "load": "always"}
    held = {"submitting": Gate("Import", len(PARTITIONS)), "waiting": Gate("GetImportState", 1)}[moment]
    with milvus_proxy(connected) as milvus:
        with held.closed() as gate:
            milvus.before = gate
            with (
                in_environment(behind(connected, milvus=milvus).connections()),
                worker("restore", {**options, "poll_interval": 1}, tmp_path / "log") as process,
            ):
                until(gate.reached.is_set, process)
        # A request that the dead worker had sent is answered all the same: the last job is one that it has heard nothing of.
        (building,) = built(connected, name)
        until(lambda: jobs(building) == len(PARTITIONS))
    assert name not in connected.collections()

    task = MilvusRestoreOperator(**options, poll_interval=0.5)
    summary = task.execute(context(task, try_number=2))
    assert (summary["rows"], summary["jobs"]) == (len(wide), len(PARTITIONS))
    assert connected.rows(name) == wide
    assert jobs(name) == len(PARTITIONS), "a job was submitted twice"
    assert connected.staged(summary["restore_id"]) == []
    assert built(connected, name) == []
