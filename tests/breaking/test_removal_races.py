"""Deletions against whatever else happens to the same backup, at exact moments: whoever comes first wins, and the other is told.

A proxy in front of the real S3 holds one request of one side back until the other side is done. Milvus is a strict model with the same S3.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import imports
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, FACTS
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import BackupExists, BackupInUse, BackupNotFound
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.settings import Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers
from tests.breaking.faults import Script
from tests.breaking.faulty_s3 import faulty_s3
from tests.breaking.processes import Point
from tests.contract import shapes
from tests.versions.worlds import World, world

NAME, BACK = ("default", "docs"), ("default", "docs_back")
WRITER, DELETER, THINNER = (Owner(f"dag/run/{task}/-1") for task in ("backup", "delete", "retention"))
THE_MARK, A_PAGE = Point("delete", number=1), Point("delete", number=2)
COPYING, LEASE, MARK = Point("copy"), "/provider/lease.json$", "/backup_meta.json$"


@dataclass
class Gate:
    """Holds one request back until it is opened."""

    point: Point
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _seen: int = 0
    _armed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, operation: str, path: str) -> None:
        with self._lock:
            if (self._armed or not self.point.after) and operation == self.point.operation and re.search(self.point.path, path):
                self._seen += 1
            here = self._seen == self.point.number and not self.reached.is_set()
            self._armed = self._armed or bool(self.point.after and re.match(self.point.after, f"{operation} {path}"))
            if here:
                self.reached.set()
        if here:
            assert self.opened.wait(600), f"nobody opened the gate at {self.point}"


@dataclass
class Ends:
    """A Milvus with a collection, and its backups."""

    world: World
    pool: ThreadPoolExecutor

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.world.settings.backup_storage)

    def settings(self, endpoint_url: str) -> Settings:
        """Return the settings of whoever comes through a proxy."""
        own = self.world.settings
        storage, backups = (replace(place, endpoint_url=endpoint_url) for place in (own.milvus_storage, own.backup_storage))
        return replace(own, milvus_storage=storage, backup_storage=backups)

    # ---- who races ---------------------------------------------------------------------------------------------------------------

    def backup(self, settings: Settings | None = None, name: str = "nightly", owner: Owner = WRITER, **more: Any) -> dict[str, Any]:
        return self.world.backup(name, owner=owner, settings=settings, gc_pause="off", **more)

    def delete(self, settings: Settings | None = None, name: str = "nightly", owner: Owner = DELETER) -> str:
        store = ObjectStore((settings or self.world.settings).backup_storage)
        return delete(store, name, owner, Reporter(self.world.log)).state

    def thin(self, settings: Settings | None = None, **policy: Any) -> dict[str, Any]:
        store = ObjectStore((settings or self.world.settings).backup_storage)
        return apply_policy(store, RetentionPolicy(**policy), THINNER, Reporter(self.world.log))

    def date(self, name: str, *, days: int) -> None:
        """Let a backup be so many days older."""
        key = f"{self.world.root}/backup/{name}/{FACTS}"
        facts = json.loads(self.store.read(key))
        facts["created"] = (datetime.fromisoformat(facts["created"]) - timedelta(days=days)).isoformat()
        self.store.write(key, json.dumps(facts).encode())

    @contextmanager
    def restoring(self, settings: Settings | None = None) -> Iterator[Callable[[], dict[str, Any]]]:
        """Start a restore; yields what ends it."""
        run = RestoreRun.open(settings or self.world.settings, Reporter(self.world.log), Patience(timeout=1200), resumable=True)
        try:
            state = run.start("nightly", "racing", RestoreOptions(suffix="_back"))

            def finish() -> dict[str, Any]:
                run.wait(state, 0.05)
                return run.finish(state)

            yield finish
        finally:
            run.close()

    def restore(self, settings: Settings | None = None) -> dict[str, Any]:
        with self.restoring(settings) as finish:
            return finish()

    @contextmanager
    def held(self, point: Point, action: Callable[[Settings], Any]) -> Iterator[Future[Any]]:
        """Let somebody act through a proxy up to one request; it goes on when the block ends."""
        gate = Gate(point)
        with faulty_s3(self.world.s3.endpoint_url, Script({})) as proxy:
            proxy.before = gate.before
            future = self.pool.submit(action, self.settings(proxy.endpoint_url))
            future.add_done_callback(lambda _: gate.reached.set())
            try:
                assert gate.reached.wait(600)
                assert not future.done(), f"{point} never came: {future.exception() or future.result()}"
                yield future
            finally:
                gate.opened.set()
                future.exception(600)

    # ---- what is true --------------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        return {entry.name: entry.state for entry in read_catalog(self.store, unfinished=True).entries}

    def check_whole(self, name: str = "nightly") -> None:
        """An independent reader finds everything that the meta names, and nothing else."""
        assert self.states()[name] == COMPLETE
        self.world.checked(name)

    def check_restored(self) -> None:
        assert self.world.model.rows(BACK) == self.world.model.rows(NAME)
        assert not [key for key in self.world.keys("backup/nightly") if "/leases/" in key]


@pytest.fixture
def ends(s3: servers.S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr(imports, "FIRST_POLL", 0.03)
    with ExitStack() as running:
        one = running.enter_context(world("2.6.20", s3))
        pool = running.enter_context(ThreadPoolExecutor(2))
        one.model.create_collection(NAME, shapes.schema("docs"))
        add(one, range(5))
        running.callback(lambda: [one.model.bucket.delete(key) for key in one.model.bucket.list(f"{one.root}/")])
        yield Ends(one, pool)


def add(one: World, numbers: range) -> None:
    one.model.insert(NAME, [shapes.row(number) for number in numbers])
    one.model.flush(NAME)


# ---- against a backup of the same name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["new", "replace"])
def test_a_backup_that_is_being_written_is_not_deleted(ends: Ends, kind: str) -> None:
    if kind == "replace":
        ends.backup(owner=Owner("dag/earlier/backup/-1"))
        add(ends.world, range(5, 8))
    more = {"if_exists": "replace"} if kind == "replace" else {}
    with ends.held(COPYING, lambda settings: ends.backup(settings, **more)) as backup:
        with pytest.raises(BackupInUse, match=r"cannot delete backup 'nightly': dag/run/backup/-1, try 1 .* is about to write backup"):
            ends.delete()
        assert ends.states() == {"nightly": COMPLETE if kind == "replace" else "unfinished"}
    assert backup.result()["rows"] == (8 if kind == "replace" else 5)
    ends.check_whole()
    assert ends.delete() == COMPLETE


DELETING = r"dag/run/delete/-1, try 1 .* is about to delete backup 'nightly'"


@pytest.mark.parametrize(
    ("point", "if_exists", "error", "said"),
    [
        (THE_MARK, "replace", BackupInUse, DELETING),
        (THE_MARK, "fail", BackupExists, "'nightly' already exists"),
        (A_PAGE, "replace", BackupInUse, DELETING),
        (A_PAGE, "resume", BackupInUse, DELETING),
        (A_PAGE, "fail", BackupExists, "was begun by dag/earlier/backup/-1"),
    ],
)
def test_a_backup_that_is_being_deleted_is_neither_resumed_nor_replaced(
    ends: Ends, point: Point, if_exists: str, error: type[Exception], said: str
) -> None:
    ends.backup(owner=Owner("dag/earlier/backup/-1"))
    with ends.held(point, ends.delete) as deletion:
        before = ends.world.keys("backup/nightly")
        with pytest.raises(error, match=said):
            ends.backup(if_exists=if_exists)
        assert ends.world.keys("backup/nightly") == before
    assert deletion.result() == COMPLETE
    assert ends.world.keys("backup/nightly") == []
    assert ends.backup(if_exists=if_exists)["rows"] == 5
    ends.check_whole()


# ---- against a restore -----------------------------------------------------------------------------------------------------------------


def test_a_backup_that_is_being_restored_is_not_deleted(ends: Ends) -> None:
    ends.backup()
    with ends.restoring() as finish:
        with pytest.raises(BackupInUse, match=r"'nightly' is in use and cannot be deleted: .* is about to restore backup 'nightly'"):
            ends.delete()
        ends.check_whole()
        finish()
    ends.check_restored()
    assert ends.delete() == COMPLETE


def test_a_restore_that_has_only_announced_itself_keeps_its_backup(ends: Ends) -> None:
    ends.backup()
    with ends.held(Point("get", MARK, after="put-if .*/provider/leases/"), ends.restore):
        with pytest.raises(BackupInUse, match="is about to restore"):
            ends.delete()
        ends.check_whole()
    ends.check_restored()


def test_a_restore_that_begins_before_the_mark_is_gone_gets_it_back(ends: Ends) -> None:
    ends.backup()
    with ends.held(THE_MARK, ends.delete) as deletion, ends.restoring():
        assert ends.states() == {"nightly": COMPLETE}
    with pytest.raises(BackupInUse, match="is about to restore"):
        deletion.result()
    ends.check_whole()
    ends.restore()
    ends.check_restored()


@pytest.mark.parametrize("point", [Point("list", "", after="delete"), A_PAGE], ids=["before-it-looks-again", "after-it-looked"])
def test_a_restore_that_begins_when_the_mark_is_gone_is_told_that_there_is_no_backup(ends: Ends, point: Point) -> None:
    ends.backup()
    with ends.held(point, ends.delete) as deletion, pytest.raises(BackupNotFound, match="'nightly' does not exist"):
        ends.restore()
    assert deletion.result() == COMPLETE
    assert ends.world.keys("backup/nightly") == []


# ---- against each other ------------------------------------------------------------------------------------------------------------------


def test_of_two_deletions_one_goes_on_and_the_other_is_told(ends: Ends) -> None:
    ends.backup()
    with ends.held(A_PAGE, ends.delete) as first, pytest.raises(BackupInUse, match=DELETING):
        ends.delete(owner=Owner("dag/second/delete/-1"))
    assert first.result() == COMPLETE
    assert ends.delete(owner=Owner("dag/second/delete/-1")) == "missing"


def test_a_further_try_ends_what_a_try_that_hangs_had_begun(ends: Ends) -> None:
    ends.backup()
    ends.backup(name="other")
    with ends.held(A_PAGE, ends.delete):
        assert ends.delete(owner=replace(DELETER, attempt=2)) == "unfinished"
        assert ends.world.keys("backup/nightly") == []
    assert ends.states() == {"other": COMPLETE}
    ends.check_whole("other")


# ---- retention -------------------------------------------------------------------------------------------------------------------------


def test_retention_leaves_a_backup_alone_that_was_replaced_since_it_looked(ends: Ends) -> None:
    ends.backup(name="nightly", owner=Owner("dag/earlier/backup/-1"))
    ends.date("nightly", days=2)
    ends.backup(name="newest")
    add(ends.world, range(5, 8))
    with ends.held(Point("put-if", f"/nightly{LEASE}"), lambda settings: ends.thin(settings, keep_last=1)) as thinning:
        assert ends.backup(if_exists="replace")["rows"] == 8
    with pytest.raises(BackupInUse, match=r"1 of 1 backup to remove could not be removed: nightly: .* has changed since it was looked at"):
        thinning.result()
    ends.check_whole("nightly")
    ends.check_whole("newest")


def test_retention_leaves_alone_what_is_being_written_and_what_is_being_restored(ends: Ends) -> None:
    for days, name in enumerate(("newest", "nightly", "oldest")):
        ends.backup(name=name)
        ends.date(name, days=days)
    with ends.restoring() as finish, ends.held(COPYING, lambda settings: ends.backup(settings, name="running")) as backup:
        assert ends.thin(keep_last=1)["removed"] == ["oldest"]
        finish()
    assert backup.result()["rows"] == 5
    ends.check_restored()
    for name in ("nightly", "newest", "running"):
        ends.check_whole(name)
