"""Looking at backups in a store: what it costs, what hides nothing else, and one backup in full."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import describe, read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import (
    ATTEMPT,
    COMPLETE,
    DAMAGED,
    HOLD,
    MARK,
    OFFICIAL,
    OURS,
    UNFINISHED,
    UNREADABLE,
)
from airflow_provider_milvus_backup.core.errors import BackupNotFound, Cancelled, ConfigError, StorageDenied, StorageError
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import DelimitingStore, backup, stored
from benchmarks.collection import BACKUPS, location
from benchmarks.slow_s3 import Answer, in_thread
from tests.golden_backups.expected import GOLDEN
from tests.official_backups import rewrite, synthetic
from tests.unit.test_catalog import CREATED, LEASED, hold, mark


class Refusing(DelimitingStore):
    """Refuses some keys, and counts what was asked for."""

    def __init__(self, contents: Mapping[str, bytes], refused: Mapping[str, Answer]) -> None:
        super().__init__(stored(contents))
        self.refused, self.asked = refused, list[str]()

    def answer(self, head: str, body: bytes) -> Answer:
        target = head.split(" ")[1]
        self.asked.append(target)
        return next((answer for part, answer in self.refused.items() if part in target), super().answer(head, body))


@contextmanager
def serving(*backups: Mapping[str, bytes], refused: Mapping[str, Answer] | None = None) -> Iterator[tuple[ObjectStore, Refusing]]:
    contents = {key: content for one in backups for key, content in one.items()}
    served = Refusing(contents, refused or {})
    with in_thread(served) as endpoint:
        yield ObjectStore(location(endpoint, ("key", "secret"), BACKUPS)), served


DENIED = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")


def below(name: str, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{BACKUPS}/{name}/{key}": content for key, content in contents.items()}


def test_a_backup_costs_one_listing_and_its_small_files_however_large_it_is() -> None:
    with serving(backup("ours", data=3000), backup("official", ours=False, data=3000), backup("checked", verified=True)) as (store, served):
        assert {entry.name: (entry.state, entry.tool) for entry in read_catalog(store).entries} == {
            "ours": (COMPLETE, OURS),
            "official": (COMPLETE, OFFICIAL),
            "checked": (COMPLETE, OURS),
        }
        assert served.requests == {"list": 1 + 3, "get": 2 + 1 + 3}


def test_more_backups_than_a_page_are_all_listed() -> None:
    with serving(*(backup(f"nightly_{number}", ours=False) for number in range(1001))) as (store, served):
        entries = read_catalog(store, "nightly_?00*").entries
        assert sorted(entry.name for entry in entries) == sorted(f"nightly_{number}" for number in (*range(100, 1000, 100), 1000))
        assert served.requests == {"list": 2 + 10, "get": 10}


def test_a_milvus_beside_the_backups_is_neither_listed_nor_walked() -> None:
    milvus = {f"{BACKUPS}/files/{kind}/1/{number}": b"x" for kind in ("insert_log", "index_files", "stats_log") for number in range(2500)}
    with serving(milvus, backup("nightly"), {f"{BACKUPS}/readme.md": b"x", f"{BACKUPS}/no-name/meta/backup_meta.json": b"x"}) as (
        store,
        served,
    ):
        assert [entry.name for entry in read_catalog(store, unfinished=True).entries] == ["nightly"]
        assert sum("files" in asked for asked in served.asked) <= 6


def test_something_between_the_files_of_a_backup_hides_none_of_them() -> None:
    strays = {"meta.old/x": b"x", "metadata/x": b"x", "notes/x": b"x"}
    with serving(backup("nightly"), below("nightly", {**strays, HOLD: hold()})) as (store, _):
        (found,) = read_catalog(store).entries
        assert (found.state, found.held, found.tool) == (COMPLETE, True, OURS)


def test_holds_and_leases_of_complete_backups_are_seen_by_the_clock_of_the_store() -> None:
    far = hold(until="2100-01-01T00:00:00+00:00")
    reading = Holding(Owner("dag.restore"), "restore backup 'read'", seconds=10**9)
    contents = [
        below("held", {HOLD: far}),
        below("released", {HOLD: hold(until=CREATED)}),
        below("read", {"provider/leases/abc.json": reading.to_json(), "provider/leases/old.json": LEASED.to_json()}),
    ]
    with serving(*contents, *(backup(name) for name in ("held", "released", "read"))) as (store, _):
        found = {entry.name: entry for entry in read_catalog(store).entries}
        assert {name: entry.held for name, entry in found.items()} == {"held": True, "released": False, "read": False}
        assert {name: entry.leased for name, entry in found.items()} == {"held": False, "released": False, "read": True}
        assert [lease.partition(" (")[0] for lease in found["read"].leases] == ["dag.restore, try 1"]


def test_unfinished_backups_are_listed_when_asked_for() -> None:
    begun = {ATTEMPT: Attempt("an-id", Owner("dag.backup")).to_json(), "binlogs/insert_log/1/2": b"x"}
    foreign = {"binlogs/insert_log/1/2": b"xyz", "binlogs/delta_log/1/2": b"x"}
    with serving(backup("done"), below("begun", begun), below("foreign", foreign), below("photos", {"cat.jpg": b"x"})) as (store, served):
        assert [entry.name for entry in read_catalog(store).entries] == ["done"]
        assert not any("insert_log" in asked or "binlogs" in asked for asked in served.asked)
        found = {entry.name: entry for entry in read_catalog(store, unfinished=True).entries}
        assert {name: (entry.state, entry.tool, entry.size) for name, entry in found.items() if name != "done"} == {
            "begun": (UNFINISHED, OURS, None),
            "foreign": (UNFINISHED, OFFICIAL, 4),
        }


def test_a_backup_that_cannot_be_looked_at_hides_no_other() -> None:
    refused = {"denied/meta/backup_meta.json": DENIED, "hold.json": DENIED}
    held = below("held", {HOLD: hold()})
    names = ("denied", "fine", "held")
    with serving(*map(backup, names), held, below("broken", {MARK: b"\xff"}), refused=refused) as (store, _):
        found = {entry.name: entry for entry in read_catalog(store).entries}
        assert {name: entry.state for name, entry in found.items()} == {
            "denied": UNREADABLE,
            "fine": COMPLETE,
            "held": UNREADABLE,  # it may be held, and nobody knows
            "broken": DAMAGED,
        }
        assert "access denied" in found["denied"].reason


@pytest.mark.parametrize("refused", ["delimiter", "/meta/backup_meta.json"])
def test_a_root_that_may_not_be_listed_or_read_is_an_error_that_says_so(refused: str) -> None:
    with (
        serving(backup("one"), backup("two"), refused={refused: DENIED}) as (store, _),
        pytest.raises(StorageDenied, match="access denied"),
    ):
        read_catalog(store)


def test_a_store_that_goes_away_is_an_error_and_not_damage_of_every_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> tuple[bytes, str]:
        time.sleep(0.5)  # enough for whoever gives up, however busy the machine is
        error = StorageError("the store is away")
        error.passing = True
        raise error

    monkeypatch.setattr(ObjectStore, "read_version", away)
    with serving(*(backup(f"nightly_{number}") for number in range(100))) as (store, served), pytest.raises(StorageError, match="away"):
        read_catalog(store)
    assert served.requests["list"] < 100


def test_a_commit_mark_that_vanishes_while_it_is_looked_at_is_no_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(backup("kept"), backup("going")) as (store, _):
        read, gone = ObjectStore.read, f"{BACKUPS}/going/{MARK}"

        def reading(self: ObjectStore, key: str, limit: int | None = None) -> bytes:
            if key == gone:
                self.delete([gone])
            return read(self, key, limit)

        monkeypatch.setattr(ObjectStore, "read", reading)
        assert [entry.name for entry in read_catalog(store).entries] == ["kept"]


def test_a_kill_ends_the_looking() -> None:
    with serving(backup("one")) as (store, _):
        store.patience = Patience()
        store.patience.stop.set()
        with pytest.raises(Cancelled):
            read_catalog(store)


def test_an_empty_root_has_no_backups_and_an_empty_pattern_is_refused() -> None:
    with serving({}) as (store, _):
        assert read_catalog(store).entries == []
        with pytest.raises(ConfigError, match="name_pattern is empty"):
            read_catalog(store, " ")


# ---- one backup ----------------------------------------------------------------------------------------------------------------


def golden(tree: str) -> tuple[str, dict[str, bytes]]:
    root = GOLDEN / tree
    contents = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    name = str(json.loads(contents[MARK])["name"])
    return name, below(name, contents)


def test_a_golden_backup_is_described_collection_by_collection() -> None:
    name, contents = golden("0.5.10")
    root = json.loads(contents[f"{BACKUPS}/{name}/meta/full_meta.json"])
    with serving(contents) as (store, _):
        found = describe(store, name)
    assert (found["state"], found["tool"], found["has_schemas"]) == (COMPLETE, OFFICIAL, False)
    assert found["collection_names"] == [
        f"{raw.get('db_name') or 'default'}.{raw['collection_name']}" for raw in root["collection_backups"]
    ]
    for shown, raw in zip(found["collections"], root["collection_backups"], strict=True):
        segments = [*(s for p in raw["partition_backups"] for s in p.get("segment_backups", [])), *raw.get("l0_segments", [])]
        logs = [log for s in segments for kind in ("binlogs", "deltalogs") for entry in s.get(kind, []) for log in entry["binlogs"]]
        assert shown == {
            "database": raw.get("db_name") or "default",
            "name": raw["collection_name"],
            "rows": sum(s.get("num_of_rows", 0) for s in segments),
            "segments": len(segments),
            "objects": len(logs),
            "bytes": sum(log["log_size"] for log in logs),
            "collection_id": raw["collection_id"],
            "partitions": len(raw["partition_backups"]),
            "indexes": len(raw.get("index_infos", [])),
            "load_state": raw["load_state"],
            "aliases": len(raw.get("aliases", [])),
        }


def test_of_users_only_the_number_is_told() -> None:
    users = [{"user": "ann", "password": "$2a$10$hash", "roles": [{"name": "reader"}]}]
    full = {**synthetic().full_meta, "rbac_meta": {"users": users, "roles": [{"name": "reader"}]}}
    written_files, _ = rewrite(full, "0.5.10", "backup", "nightly")
    with serving(written_files) as (store, _):
        found = describe(store, "nightly")
    assert found["rbac"] == {"users": 1, "roles": 1, "grants": 0, "privilege_groups": 0}
    assert not any(secret in json.dumps(found) for secret in ("hash", "ann", "reader"))


def test_a_snapshot_shows_files_and_bytes_for_each_collection() -> None:
    name, contents = golden("head-snapshot")
    root = json.loads(contents[f"{BACKUPS}/{name}/meta/full_meta.json"])
    with serving(contents) as (store, _):
        found = describe(store, name)
    assert (found["format"], found["rows"]) == ("snapshot", None)
    for shown, raw in zip(found["collections"], root["collection_backups"], strict=True):
        told = raw.get("snapshot_backup", {})
        assert (shown["objects"], shown["bytes"]) == (told.get("total_files", 0), told.get("total_bytes", 0))
        assert (shown["rows"], shown["segments"]) == (None, None)


def test_a_damaged_meta_is_described_as_such() -> None:
    other = json.dumps({**synthetic().full_meta, "name": "nightly", "id": "another"}).encode()
    for content, reason in ((b"{", "full_meta.json is not readable JSON"), (other, "the meta is of backup 'nightly' with another id")):
        with serving(backup("nightly"), below("nightly", {"meta/full_meta.json": content})) as (store, _):
            found = describe(store, "nightly")
            assert (found["state"], "collections" in found) == (DAMAGED, False)
            assert reason in found["reason"]


def test_a_format_from_the_future_is_described_by_its_mark() -> None:
    full = json.dumps({"name": "nightly", "id": "an-id", "format": "parquet"}).encode()
    with serving(below("nightly", {MARK: mark(format="parquet"), "meta/full_meta.json": full})) as (store, _):
        found = describe(store, "nightly")
    assert (found["state"], found["format"]) == (COMPLETE, "parquet")
    assert "'parquet' format" in found["reason"]


def test_what_is_not_there_is_not_found_and_the_nearest_names_are_told() -> None:
    with serving(backup("nightly_1")) as (store, _):
        with pytest.raises(BackupNotFound, match="'nightly_2' does not exist"):
            describe(store, "nightly_2")
        with pytest.raises(ConfigError, match="not valid"):
            describe(store, "../x")


def test_an_unfinished_backup_is_described_without_its_contents() -> None:
    with serving(below("begun", {ATTEMPT: Attempt("an-id", Owner("dag.backup")).to_json()})) as (store, _):
        found = describe(store, "begun")
    assert (found["state"], found["owner"], "collections" in found) == (UNFINISHED, "dag.backup, try 1", False)
