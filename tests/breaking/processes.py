"""A backup, a restore, a deletion or a check in a process of its own, as a task is, which dies at one exact request.

``python -m tests.breaking.processes`` imports all it needs, waits for one line on stdin, a :class:`Task` as JSON, and does what it says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from airflow_provider_milvus_backup.core import deleting
from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.drill_plan import DrillOptions
from airflow_provider_milvus_backup.core.drilling import drill
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.preflight import check
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.settings import MilvusAddress, S3Location, Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo.servers import LOOPBACK
from tests.breaking.faults import Script
from tests.breaking.faulty_grpc import faulty_grpc
from tests.breaking.faulty_s3 import faulty_s3

ROOT = Path(__file__).parents[2]
#: Many times what a task takes, on a machine that is busy.
SECONDS = 1200.0
#: Few, so that a process that dies while it copies has not asked for everything yet.
CONCURRENCY = 2


@dataclass(frozen=True)
class Task:
    """One backup, or with a ``restore_id`` one restore, or what the ``verb`` says, by one try of one task instance."""

    #: Host and port of Milvus, URL and keys of the S3.
    milvus: tuple[str, int]
    s3: tuple[str, str, str]
    #: Bucket and root path of Milvus's data, and of the backups.
    storage: tuple[str, str]
    backups: tuple[str, str]
    name: str
    #: More arguments of the backup, or the restore's options.
    arguments: dict[str, Any] = field(default_factory=dict)
    restore_id: str = ""
    owner: tuple[str, int, int] = ("dag/run/task/-1", 0, 1)
    #: ``drill``: its id is the ``restore_id``. ``check``: of the collections of this name. ``delete``: the backup of this name;
    #: ``retention``: the arguments are its policy; for these Milvus is not asked.
    verb: str = ""
    #: How many objects a process of its own deletes with one request.
    page: int = deleting.PAGE

    def retried(self) -> Task:
        """Return the next try of the same task instance."""
        identity, cleared, attempt = self.owner
        return replace(self, owner=(identity, cleared, attempt + 1))

    def run(self, log: Any = None) -> dict[str, Any]:
        """Do it here and now, and return the summary."""
        url, key, secret = self.s3
        session = partial(boto3.Session, key, secret, region_name="us-east-1")
        storage, backups = (S3Location(bucket, root, session, endpoint_url=url) for bucket, root in (self.storage, self.backups))
        settings = Settings(MilvusAddress(*self.milvus), storage, backups, concurrency=CONCURRENCY)
        reporter, patience, owner = Reporter(log), Patience(timeout=SECONDS), Owner(*self.owner)
        if self.verb == "drill":
            return drill(settings, DrillOptions(self.name, **self.arguments), owner, reporter, patience, self.restore_id, 0.5)
        if self.verb == "check":
            return check(settings, reporter, patience, self.name)
        if self.verb == "delete":
            return deleting.delete(ObjectStore(backups, patience), self.name, owner, reporter).to_dict()
        if self.verb == "retention":
            return deleting.apply_policy(ObjectStore(backups, patience), RetentionPolicy(**self.arguments), owner, reporter)
        if not self.restore_id:
            backup = BackupRun.open(settings, reporter, patience, owner)
            try:
                return backup.backup(self.name, **self.arguments).to_dict()
            finally:
                backup.server.close()
        restore = RestoreRun.open(settings, reporter, patience, owner)
        try:
            state = restore.start(self.name, self.restore_id, RestoreOptions(**self.arguments))
            restore.wait(state, 0.5)
            return restore.finish(state)
        finally:
            restore.close()


class Child:
    """A fresh interpreter that has imported everything, or is about to, and does one task."""

    def __init__(self) -> None:
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        command = [sys.executable, "-m", "tests.breaking.processes"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=self.output, stderr=subprocess.STDOUT, text=True)

    def run(self, task: Task) -> int:
        """Let it do the task; returns its return code."""
        self.process.communicate(json.dumps(asdict(task)) + "\n", timeout=SECONDS)
        return self.process.returncode

    def said(self) -> str:
        """Return what it has written."""
        self.output.seek(0)
        return self.output.read()

    def close(self) -> None:
        """End it and return when it is gone."""
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.output.close()


class Children:
    """Children that are started ahead of time, for their imports take longer than most of their tasks."""

    def __init__(self, total: int, ahead: int) -> None:
        self._lock = threading.Lock()
        self._to_start = total
        self._waiting: list[Child] = []
        self._start(ahead)

    def _start(self, count: int) -> None:
        for _ in range(min(count, self._to_start)):
            self._to_start -= 1
            self._waiting.append(Child())

    @contextmanager
    def one(self) -> Iterator[Child]:
        """Yield the child that has waited longest, and start another one in its place."""
        with self._lock:
            child = self._waiting.pop(0) if self._waiting else Child()
            self._start(1)
        try:
            yield child
        finally:
            child.close()

    def close(self) -> None:
        """End those that were not needed."""
        for child in self._waiting:
            child.close()


@dataclass(frozen=True)
class Point:
    """The ``number``-th request of an operation whose path matches, after one whose ``<operation> <path>`` matches; Milvus has no paths."""

    operation: str
    path: str = ""
    number: int = 1
    after: str = ""


class Killer:
    """Kills a process when its request of one point is about to be forwarded; the request itself then is."""

    def __init__(self, process: subprocess.Popen[str], point: Point) -> None:
        self.process, self.point = process, point
        #: (operation, path) of all requests so far.
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._armed = not point.after
        self._seen = 0

    def before(self, operation: str, path: str = "") -> None:
        """Take note of a request; does not return before the process is dead, when it is to be."""
        with self._lock:
            self.requests.append((operation, path))
            if self._armed and operation == self.point.operation and re.search(self.point.path, path):
                self._seen += 1
                if self._seen == self.point.number:
                    self.process.kill()
                    with suppress(ChildProcessError):  # whoever waits for its return code was faster
                        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            self._armed = self._armed or bool(re.match(self.point.after, f"{operation} {path}"))


def run_and_kill(task: Task, child: Child, point: Point) -> tuple[int, list[tuple[str, str]]]:
    """Let the child do the task until it dies; returns its return code and all requests, each of which has happened."""
    url, *keys = task.s3
    with faulty_s3(url, Script({})) as s3, faulty_grpc(*task.milvus, Script({})) as milvus:
        killer = Killer(child.process, point)
        s3.before = milvus.before = killer.before
        code = child.run(replace(task, milvus=(LOOPBACK, milvus.port), s3=(s3.endpoint_url, *keys)))
        until = time.monotonic() + 600
        while s3._running:
            assert time.monotonic() < until, "a request is still being forwarded"
            time.sleep(0.01)
    return code, killer.requests


def main() -> None:
    """Do the task that is written to stdin."""
    import logging

    import grpc  # noqa: F401
    import obstore  # noqa: F401
    from pymilvus.grpc_gen import milvus_pb2_grpc  # noqa: F401

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    if line := sys.stdin.readline():
        task = Task(**json.loads(line))
        deleting.PAGE = task.page
        task.run()


if __name__ == "__main__":
    main()
