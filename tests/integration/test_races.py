"""Two at once: exactly one wins or both finish rightly, and the loser says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import BackupExists, BackupInUse, MilvusBackupError, TargetExists
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.names import CollectionName, restore_of
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.integration import data
from tests.integration.clusters import A_BUCKET, Cluster, listing

NAME = CollectionName("default", "raced")


@pytest.fixture(scope="module", autouse=True)
def shape(a: Cluster) -> Iterator[data.Collection]:
    shape = data.docs("raced")
    a.create(shape, range(60), load=True)
    yield shape
    a.drop(*(CollectionName("default", name) for name in a.collections()["default"] if name.startswith("raced")))


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """Run all actions in the same moment; return what each returned or raised."""
    barrier = Barrier(len(actions))

    def run(action: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return action()
        except MilvusBackupError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def whole(a: Cluster, name: str) -> None:
    """A complete backup has exactly the objects that its meta names."""
    backup = read_backup(ObjectStore(a.backups), name)
    objects = [key for key in listing(a.s3, A_BUCKET, f"backup/{name}/") if "/binlogs/" in key]
    assert len(objects) == sum(segment.objects for segment in backup.collections[0].segments()) > 0


@pytest.mark.parametrize("number", range(3))
def test_of_several_backups_of_one_name_one_wins(a: Cluster, number: int) -> None:
    name = f"raced_{number}"
    owners = [Owner(f"dag/run {i}/task/-1", 0, 1) for i in range(4)]
    ended = at_once(*(lambda owner=owner: a.backup(name, "raced", owner=owner) for owner in owners))  # type: ignore[misc]
    won = [one for one in ended if isinstance(one, dict)]
    lost = [one for one in ended if not isinstance(one, dict)]
    assert len(won) == 1
    for error in lost:
        assert isinstance(error, BackupInUse | BackupExists), error
        assert "is about to write backup" in str(error) or "already exists" in str(error) or "was begun by dag/run" in str(error)
    whole(a, name)


def test_a_restore_beside_the_replacement_of_its_backup_restores_the_old_or_the_new_one(a: Cluster, shape: data.Collection) -> None:
    a.backup("raced_replaced", "raced", owner=Owner("dag/old/task/-1"))
    old = a.contents(NAME, load=False)
    a.client().delete("raced", ids=[1, 2, 3])
    shape.insert(a.client(), range(100, 110))
    new = a.contents(NAME, load=False)
    assert old != new
    restored, replaced = at_once(
        lambda: a.restore("raced_replaced", suffix="_beside", restore_id="beside", load="always"),
        lambda: a.backup("raced_replaced", "raced", if_exists="replace", owner=Owner("dag/new/task/-1")),
    )
    assert isinstance(replaced, dict), replaced
    if isinstance(restored, BackupInUse):  # it was replaced between two looks; a retry restores the new one
        restored = a.restore("raced_replaced", suffix="_beside", restore_id="beside", load="always")
    assert isinstance(restored, dict), restored
    assert a.contents(CollectionName("default", "raced_beside"), load=False) in (old, new)
    assert sum(segment.rows for segment in read_backup(ObjectStore(a.backups), "raced_replaced").collections[0].segments()) >= len(new)


def test_of_two_restores_into_one_target_one_wins_and_nothing_of_the_other_is_left(a: Cluster) -> None:
    expected = a.contents(NAME, load=False)
    a.backup("raced_target", "raced")
    ended = at_once(*(lambda i=i: a.restore("raced_target", suffix="_target", restore_id=f"race-{i}") for i in range(2)))  # type: ignore[misc]
    won = [one for one in ended if isinstance(one, dict)]
    (lost,) = (one for one in ended if not isinstance(one, dict))
    assert len(won) == 1
    assert isinstance(lost, TargetExists), lost
    assert "raced_target" in str(lost)
    assert a.contents(CollectionName("default", "raced_target")) == expected
    assert [name for name in a.collections()["default"] if restore_of(CollectionName("default", name))] == []
    assert listing(a.s3, A_BUCKET, "restore-temp-") == {}


def test_a_name_that_somebody_took_meanwhile_stays_theirs(a: Cluster) -> None:
    """Both restores are done but for the name, which is the moment that matters."""
    a.backup("raced_name", "raced")
    runs = [RestoreRun.open(a.settings, Reporter(a.log), Patience(timeout=280)) for _ in range(2)]
    states = [run.start("raced_name", f"name-{i}", RestoreOptions(suffix="_name", load="never")) for i, run in enumerate(runs)]
    for run, state in zip(runs, states, strict=True):
        run.wait(state, 1.0)
    runs[1].finish(states[1])
    with pytest.raises(TargetExists, match="raced_name was created by somebody else while it was being restored"):
        runs[0].finish(states[0])
    for run in runs:
        run.close()
    assert a.server.collection_id(CollectionName("default", "raced_name")) == states[1].targets[0].collection_id
    assert [name for name in a.collections()["default"] if restore_of(CollectionName("default", name))] == []
