"""Milvus or the S3 dies in the middle of a backup or a restore and comes back: a few tries later all is as if it had not.

The servers belong to this module alone, for a Milvus that was killed while it imports is slow for a while.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_milvus_backup.core import copier, rpc, store
from airflow_provider_milvus_backup.core.names import CollectionName
from demo import servers
from tests.breaking.checker import Kept, Rig
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, admin, location

TRIES = 4


@dataclass
class Restartable:
    """An S3 that can be killed and started again on the same directory and ports."""

    server: servers.S3Server
    _process: servers.Process | None = None

    def __post_init__(self) -> None:
        process = Path(f"/proc/{self.server.pid}")
        self._command = process.joinpath("cmdline").read_bytes().decode().rstrip("\0").split("\0")

    def kill(self) -> None:
        """End it as a power cut would, and return when it is gone."""
        if self._process:
            servers._kill(self._process)
            return
        os.kill(self.server.pid, signal.SIGKILL)  # whoever started it waits for it later, and finds it dead
        deadline = time.monotonic() + 600
        while Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def restart(self) -> None:
        """Start it again and return when it answers."""
        client = admin(self.server)
        directory = self.server.log_path.parent
        self._process = servers._start(self._command, directory, {}, self.server.log_path, lambda: bool(client.list_buckets()))

    def close(self) -> None:
        """End what was started again."""
        if self._process:
            servers._kill(self._process)


@dataclass
class Crash:
    """Kills a server at one request and starts it again some seconds later, as a supervisor would."""

    kill: Callable[[], None]
    restart: Callable[[], None]
    operation: str
    path: str = ""
    number: int = 1
    seconds: float = 1.0
    happened: bool = False
    seen: int = 0
    errors: list[Exception] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def before(self, operation: str, path: str = "") -> None:
        """Take note of a request; the one that is meant does not go on before the server is dead."""
        with self._lock:
            if self.happened or operation != self.operation or not re.search(self.path, path):
                return
            self.seen += 1
            if self.seen < self.number:
                return
            self.happened = True
            self.kill()
            self._thread = threading.Thread(target=self._come_back)
            self._thread.start()

    def _come_back(self) -> None:
        time.sleep(self.seconds)
        try:
            self.restart()
        except Exception as error:  # noqa: BLE001 (raised again in the test's thread)
            self.errors.append(error)

    def over(self) -> None:
        """Return when the server is back; fails when it never died."""
        assert self.happened, f"{self.operation} {self.path} never came"
        assert self._thread
        self._thread.join()
        if self.errors:
            raise self.errors[0]


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """Wait for a server that is away for as long as it takes this machine to start it again, which may be minutes when it is busy."""
    with pytest.MonkeyPatch.context() as patch:
        for one, name, value in (
            (rpc, "BUDGET", 900.0),
            (store, "BUDGET", 900.0),
            (copier, "ATTEMPTS", 100),
            (servers, "START_SECONDS", 900.0),
        ):
            patch.setattr(one, name, value)
        yield


@pytest.fixture(scope="module")
def own_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    with servers.s3_server(tmp_path_factory.mktemp("crashing-s3")) as server:
        for bucket in (A_BUCKET, VAULT):
            server.create_bucket(bucket)
        one = Restartable(server)
        try:
            yield one
        finally:
            one.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, own_s3: Restartable) -> Iterator[Rig]:
    """A collection that is backed up as ``calm`` before anything dies."""
    with servers.milvus_server(tmp_path_factory.mktemp("crashing"), own_s3.server, bucket=A_BUCKET) as milvus:
        cluster = Cluster(milvus, own_s3.server, location(own_s3.server, A_BUCKET))
        one = Rig(cluster, "crashes")
        with ExitStack() as stack:
            assert one.backup(one.proxies(stack, bucket=VAULT), "calm").errors == []
        yield one
        cluster.close()


def back_up(rig: Rig, name: str, crash: Crash) -> int:
    """Back up while something dies; returns the number of tries."""
    log = Kept()
    with ExitStack() as stack:
        proxies = rig.proxies(stack, bucket=VAULT)
        proxies.s3.before = proxies.milvus.before = crash.before
        try:
            tried = rig.backup(proxies, name, log, tries=TRIES)
        finally:
            print("\n".join(log.lines))  # noqa: T201
            crash.over()
    assert rig.check_backup(VAULT, name)
    return tried.tries


def restore(rig: Rig, restore_id: str, crash: Crash, *, killed: bool = False) -> int:
    """Restore while something dies; returns the number of tries."""
    log = Kept()
    target = CollectionName("default", f"crashes_{restore_id}")
    with ExitStack() as stack:
        proxies = rig.proxies(stack, bucket=VAULT)
        proxies.s3.before = proxies.milvus.before = crash.before
        try:
            tried = rig.restore(
                proxies, "calm", restore_id, target, log, tries=TRIES, killed=killed, suffix=f"_{restore_id}", load="always"
            )
        finally:
            print("\n".join(log.lines))  # noqa: T201
            crash.over()
    rig.check_restore(target, done=True)
    return tried.tries


def test_a_backup_survives_that_s3_dies_while_it_copies(rig: Rig, own_s3: Restartable) -> None:
    crash = Crash(own_s3.kill, own_s3.restart, "copy", number=6)
    assert back_up(rig, "s3_copy", crash) <= 2


def test_a_restore_survives_that_s3_dies_while_it_stages(rig: Rig, own_s3: Restartable) -> None:
    crash = Crash(own_s3.kill, own_s3.restart, "copy", "/restore-temp-", 6)
    assert restore(rig, "staging", crash) <= 2


def test_a_backup_survives_that_milvus_dies_while_it_flushes(rig: Rig) -> None:
    """The flush is asked for again: what it had sealed is not known to the Milvus that comes back."""
    milvus = rig.cluster.milvus
    crash = Crash(milvus.kill, milvus.restart, "GetFlushState")
    assert back_up(rig, "flushing", crash) <= 2


def test_a_backup_survives_that_milvus_dies_between_the_survey_and_the_copy(rig: Rig) -> None:
    milvus = rig.cluster.milvus
    crash = Crash(milvus.kill, milvus.restart, "copy")
    assert back_up(rig, "surveyed", crash) == 1


def test_a_restore_survives_that_milvus_dies_while_it_imports(rig: Rig) -> None:
    """What cannot be dropped, because an import into it never ends, does not have the target's name, and the log says so."""
    milvus = rig.cluster.milvus
    crash = Crash(milvus.kill, milvus.restart, "GetImportState", number=2)
    assert restore(rig, "importing", crash, killed=True) <= TRIES
