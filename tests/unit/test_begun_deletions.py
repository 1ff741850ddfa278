"""A deletion whose process died is ended by the next retention, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_milvus_backup.core.begun_deletions import deletion_of, with_begun
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, DAMAGED, LEASE, UNFINISHED, CatalogEntry
from airflow_provider_milvus_backup.core.deleting import apply_policy
from airflow_provider_milvus_backup.core.lease import LIFE, Holding, Owner
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention import Decision
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.unit.deletion_store import DeletionStore, serving
from tests.unit.test_lease import Lines

FIRST, SECOND, OTHER = Owner("dag/run/thin/-1"), Owner("dag/run/thin/-1", 0, 2), Owner("dag/run/delete/-1")
KEY = f"{BACKUPS}/half/{LEASE}"
DELETING = Holding(FIRST, deletion_of("half"))


@pytest.fixture
def served() -> Iterator[tuple[ObjectStore, DeletionStore]]:
    with serving({f"{BACKUPS}/half/binlogs/insert_log/1": b"x"}, backup("whole")) as both:
        yield both


def decided(store: ObjectStore, owner: Owner = SECOND, **changes: object) -> tuple[bool, list[str]]:
    entry = replace(CatalogEntry("half", UNFINISHED, written=datetime.now(timezone.utc)), **changes)  # type: ignore[arg-type]
    (decision,) = with_begun(store, [Decision(entry, True, ["in use"])], owner)
    return decision.keep, decision.reasons


def test_what_an_earlier_try_of_the_same_task_began_is_ended_at_once(served: tuple[ObjectStore, DeletionStore]) -> None:
    store, files = served
    files.put(KEY, DELETING.to_json())
    assert decided(store) == (False, ["its deletion was begun"])


def test_what_somebody_else_began_is_ended_when_their_lease_has_run_out(
    served: tuple[ObjectStore, DeletionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, files = served
    files.put(KEY, DELETING.to_json())
    ages = []
    for age in (0.0, LIFE - 1, LIFE):
        monkeypatch.setattr(ObjectStore, "age", lambda *_, age=age: age)
        ages.append(decided(store, OTHER)[0])
    assert ages == [True, True, False]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        Holding(FIRST, "write backup 'half'").to_json(),
        Holding(FIRST, deletion_of("other")).to_json(),
        Holding(FIRST, "put backup 'half' on hold").to_json(),
    ],
)
def test_a_lease_that_says_anything_else_is_no_deletion(served: tuple[ObjectStore, DeletionStore], content: bytes) -> None:
    store, files = served
    files.put(KEY, content)
    assert decided(store) == (True, ["in use"])


def test_without_a_lease_nothing_was_begun(served: tuple[ObjectStore, DeletionStore]) -> None:
    assert decided(served[0]) == (True, ["in use"])


@pytest.mark.parametrize("changes", [{"state": COMPLETE}, {"state": DAMAGED}, {"hold": {"reason": "audit"}}])
def test_what_has_its_mark_or_a_hold_is_not_touched(served: tuple[ObjectStore, DeletionStore], changes: dict[str, object]) -> None:
    store, files = served
    files.put(KEY, DELETING.to_json())
    assert decided(store, **changes) == (True, ["in use"])


def test_the_rest_of_it_goes_although_it_was_written_to_a_moment_ago(served: tuple[ObjectStore, DeletionStore]) -> None:
    store, files = served
    files.put(KEY, DELETING.to_json())
    policy = RetentionPolicy(keep_last=1, grace=timedelta(days=9999))
    shown = apply_policy(store, policy, SECOND, Reporter(Lines()), dry_run=True)
    assert KEY in files.keys
    done = apply_policy(store, policy, SECOND, Reporter(Lines()))
    assert (shown["removed"], done["removed"], done["kept"]) == (["half"], ["half"], 1)
    assert files.keys == set(backup("whole"))
