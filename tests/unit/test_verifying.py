"""Verifying: what it costs and reads, what is never taken for a backup that is whole, and whose result is kept."""

from __future__ import annotations

import json
import threading
import tracemalloc
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import reading, verifying
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.errors import (
    BackupInUse,
    BackupNotFound,
    Cancelled,
    ConfigError,
    StorageDenied,
    StorageError,
)
from airflow_provider_milvus_backup.core.lease import Lease, in_use
from airflow_provider_milvus_backup.core.pacing import Pace
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.verification import BINLOGS, CHECKSUMS, LEVELS, OBJECTS
from benchmarks.collection import BACKUPS
from benchmarks.slow_s3 import Answer
from tests.unit.deletion_store import DENIED
from tests.unit.test_lease import Lines
from tests.unit.verified_backups import ID, L0, NAME, SEGMENTS, contents, kinds, serving, verified

BROKEN = Answer(500, b"<Error><Code>InternalError</Code></Error>")
KEY = "binlogs/insert_log/10/11/13/13/100/13100"
MANIFEST, FULL, MARK = "provider/manifest.json", "meta/full_meta.json", "meta/backup_meta.json"
VERIFIED = f"{BACKUPS}/{NAME}/provider/verified.json"


@pytest.fixture(autouse=True)
def _few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ATTEMPTS", 2)


def stored(served: Any) -> dict[str, Any]:
    return dict(json.loads(served.content("provider/verified.json")))


# ---- a clean backup -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"manifest": False},
        {"opaque": True, "checksums": True},
        {"checksums": True},
        {"capitals": True},
        {"capitals": True, "manifest": False},
    ],
    ids=["ours", "official", "kms", "plain", "oss", "official on oss"],
)
@pytest.mark.parametrize("level", LEVELS)
def test_a_clean_backup_is_ok_and_all_of_it_is_proven(level: str, habits: dict[str, bool]) -> None:
    data = contents()
    size = sum(map(len, data.values()))
    with serving(**habits) as (store, served):
        found = verified(store, level)
        assert (found.findings, found.damage, found.intact, found.unproven) == ([], [], ["default.c10", "default.c20"], 0)
        assert (found.objects, found.bytes) == (len(data), size)
        assert (found.read_objects, found.read_bytes) == ((0, 0) if level == OBJECTS else (len(data), size))
        assert found.segments == (5 if level == BINLOGS else 0)
        assert found.compared_with == ("manifest" if habits.get("manifest", True) else "meta")
        said = stored(served)
        assert {key: said[key] for key in ("backup_id", "level", "ok", "sample", "damaged_segments", "findings")} == {
            "backup_id": ID,
            "level": level,
            "ok": True,
            "sample": None,
            "damaged_segments": [],
            "findings": [],
        }
        assert {key: found.to_dict()[key] for key in said.keys() & found.to_dict().keys()} == {
            key: said[key] for key in said.keys() & found.to_dict().keys()
        }
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_objects_costs_one_listing_and_reads_no_data() -> None:
    with serving() as (store, served):
        verified(store)
        assert served.requests["list"] == 1
        assert not [key for key in served.reads if "/binlogs/" in key]


@pytest.mark.parametrize("level", [CHECKSUMS, BINLOGS])
def test_every_object_is_read_once(level: str) -> None:
    with serving() as (store, served):
        verified(store, level)
        assert sorted(key for key in served.reads if "/binlogs/" in key) == sorted(f"{BACKUPS}/{NAME}/{key}" for key in contents())


def test_a_large_object_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    size, most = 32 * reading.MIB, 1.25

    async def get(self: Any, key: str, start: int, end: int, of: int) -> tuple[bytes, int]:
        return bytes(end - start), of

    monkeypatch.setattr(reading.Reading, "_get", get)
    with serving() as (store, _):
        seen = list[int]()
        reads = reading.Reading(store, NAME, Pace(None), Reporter(Lines()), whole=True)
        tracemalloc.start()
        try:
            reads.run([reading.Target(KEY, size)], lambda outcome: seen.append(len(outcome.content or b"")), (1, size))
            assert tracemalloc.get_traced_memory()[1] < most * size + 2 * reading.RANGE
        finally:
            tracemalloc.stop()
        assert seen == [size]


@pytest.mark.parametrize("level", [CHECKSUMS, BINLOGS])
def test_large_objects_are_read_in_ranges_and_one_that_fails_is_read_again_alone(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RANGE", 100)
    with serving() as (store, served):
        key = f"{BACKUPS}/{NAME}/{KEY}"
        served.stumbles[key] = 2
        assert verified(store, level).findings == []
        assert [first for of, first in served.ranges if of == key] == [*range(0, len(served.content(KEY)), 100)]
        served.rot(KEY)
        assert kinds(verified(store, level)) == [("content", KEY)]
        served.change(KEY, served.content(KEY) + b"x", etag=served.etag(KEY))
        assert kinds(verified(store, level)) == [("size", KEY)]


# ---- what cannot be read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "said"), [(BROKEN, "InternalError"), (DENIED, "AccessDenied")])
def test_one_object_that_cannot_be_read_although_the_store_answers_is_damage(fault: Answer, said: str) -> None:
    with serving() as (store, served):
        served.faults[f"GET {BACKUPS}/{NAME}/{KEY}"] = fault
        found = verified(store, BINLOGS)
        assert kinds(found) == [("unreadable", KEY)]
        assert (said in found.findings[0].detail, found.damaged_segments) == (True, [13])
        assert stored(served)["damaged_segments"] == [13]


@pytest.mark.parametrize("level", [CHECKSUMS, BINLOGS])
def test_an_object_that_a_busy_store_does_not_give_is_read_at_the_end(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (store, served):
        refused, ask = list[str](), type(served).answer

        def answer(self: Any, head: str, body: bytes) -> Answer:
            if head.startswith("GET") and KEY in head and len(refused) < reading.ATTEMPTS:
                refused.append(head)
                return Answer(503, b"<Error><Code>SlowDown</Code></Error>")
            return ask(self, head, body)

        monkeypatch.setattr(type(served), "answer", answer)
        found = verified(store, level)
        assert (found.findings, found.read_objects, found.unproven) == ([], len(contents()), 0)
        assert found.segments == (5 if level == BINLOGS else 0)
        assert served.reads.count(f"{BACKUPS}/{NAME}/{KEY}") == 1


def test_an_object_that_vanishes_between_listing_and_reading_is_missing() -> None:
    with serving() as (store, served):
        served.faults[f"GET {BACKUPS}/{NAME}/{KEY}"] = Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        assert kinds(verified(store, CHECKSUMS)) == [("missing", KEY)]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"GET ": BROKEN, "HEAD ": BROKEN}, StorageError),
        ({f"GET {BACKUPS}/{NAME}/binlogs": DENIED, f"HEAD {BACKUPS}/{NAME}/meta": DENIED}, StorageDenied),
        ({"list-type": DENIED}, StorageDenied),
        ({FULL: DENIED}, StorageDenied),
        ({MANIFEST: DENIED}, StorageDenied),
    ],
    ids=["away", "denied", "listing", "meta", "manifest"],
)
def test_a_store_that_does_not_let_it_be_read_is_an_error_and_no_result(
    faults: dict[str, Answer], error: type[StorageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_milvus_backup.core.store.BUDGET", 0.1)
    with serving() as (store, served):
        before = verified(store).time
        served.faults.update(faults)
        with pytest.raises(error) as raised:
            verified(store, CHECKSUMS)
        assert type(raised.value) is error
        assert raised.value.retryable == (error is StorageError)
        assert stored(served)["time"] == before
        served.faults.clear()
        assert in_use(store, BACKUPS, NAME) == []


def test_too_many_objects_that_cannot_be_read_are_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_UNREADABLE", 3)
    with serving() as (store, served):
        served.faults[f"GET {BACKUPS}/{NAME}/binlogs"] = BROKEN
        with pytest.raises(StorageError, match="more than 3 objects of backup 'nightly' cannot be read"):
            verified(store, CHECKSUMS)
        assert VERIFIED not in served.keys


def test_where_nothing_is_known_of_the_content_checksums_are_refused_and_binlogs_are_opened() -> None:
    with serving(opaque=True) as (store, served):
        with pytest.raises(ConfigError, match=r"level 'checksums' proves nothing .* Use 'binlogs'"):
            verified(store, CHECKSUMS)
        found = verified(store, BINLOGS)
        assert (found.ok, found.unproven) == (True, len(contents()))
        cut = f"binlogs/delta_log/10/-1/{L0}/{L0}900"
        served.change(cut, b"X" + served.content(cut)[1:], etag=served.etag(cut))
        assert kinds(verified(store, BINLOGS)) == [("binlog", cut)]


# ---- whose result it is ---------------------------------------------------------------------------------------------------------


def test_nobody_deletes_the_backup_meanwhile_and_no_lease_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (store, _):
        seen = list[Any]()
        monkeypatch.setattr(verifying, "read_account", lambda *a: (seen.extend(in_use(store, BACKUPS, NAME)), account(*a))[1])
        verified(store)
        assert [held.doing for held in seen] == ["verify backup 'nightly'"]
        assert in_use(store, BACKUPS, NAME) == []


def test_a_further_try_takes_over_from_one_that_was_killed_and_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (store, served):
        with monkeypatch.context() as killed:
            killed.setattr(verifying, "read_account", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            killed.setattr(Lease, "give_up", lambda _: None)
            with pytest.raises(KeyboardInterrupt):
                verified(store)
        (held,) = in_use(store, BACKUPS, NAME)
        assert held.doing == "verify backup 'nightly'"
        assert verified(store).ok
        assert [key for key in served.keys if "/leases/" in key] == []


account = verifying.read_account


def test_where_nothing_may_be_written_the_result_is_returned_and_it_is_said_that_it_is_not_kept() -> None:
    with serving() as (store, served):
        served.faults["PUT "] = DENIED
        log = Lines()
        assert verified(store, CHECKSUMS, log).ok
        assert VERIFIED not in served.keys
        assert any("without a lease" in line and "not kept" in line for line in log.lines)


def test_a_backup_that_was_replaced_meanwhile_gets_no_result_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (store, served):

        def replaced(*arguments: Any) -> Any:
            found = account(*arguments)
            served.change(MARK, served.content(MARK).replace(ID.encode(), b"other"))
            return found

        monkeypatch.setattr(verifying, "read_account", replaced)
        with pytest.raises(BackupInUse, match="was replaced while it was verified"):
            verified(store)
        assert VERIFIED not in served.keys


def test_a_backup_that_is_deleted_meanwhile_is_not_damaged_but_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (store, served):

        def deleted(*arguments: Any) -> Any:
            found = account(*arguments)
            for key in (MARK, KEY):
                served.remove(key)
            return found

        monkeypatch.setattr(verifying, "read_account", deleted)
        with pytest.raises(BackupNotFound, match="'nightly' was deleted while it was verified"):
            verified(store)
        assert VERIFIED not in served.keys


@pytest.mark.parametrize(
    ("deep", "shallow"),
    [
        ({"level": CHECKSUMS}, {"level": OBJECTS}),
        ({"level": BINLOGS, "sample": "1/1"}, {"level": CHECKSUMS}),
        ({"level": CHECKSUMS}, {"level": CHECKSUMS, "sample": "1/1"}),
        ({"level": CHECKSUMS, "sample": "100%"}, {"level": CHECKSUMS, "sample": "100%"}),
    ],
)
def test_damage_that_was_found_is_not_forgotten_because_somebody_looked_less_closely(
    deep: dict[str, Any], shallow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as (store, served):
        whole = served.content(KEY)
        served.rot(KEY)
        assert not verified(store, **deep).ok
        before = stored(served)
        served.change(KEY, whole)  # which is what an object looks like that the less close look does not open
        log = Lines()
        assert verified(store, log=log, **shallow).ok
        assert stored(served) == before
        assert any("has not looked as closely, so that result stays" in line for line in log.lines)
        (entry,) = read_catalog(store).entries
        assert entry.verified
        assert (entry.verified["ok"], entry.verified["damaged_segments"]) == (False, [13])
        assert verified(store, BINLOGS).ok
        assert stored(served)["ok"] is True


def test_the_newest_result_counts_be_it_better_or_worse() -> None:
    with serving() as (store, served):
        whole = served.content(KEY)
        served.rot(KEY)
        for content, ok in ((served.content(KEY), False), (whole, True), (served.content(KEY), False)):
            served.change(KEY, content, etag=served.etag(KEY))
            assert verified(store, CHECKSUMS).ok is ok
            (entry,) = read_catalog(store).entries
            assert entry.verified
            assert (entry.verified["ok"], entry.verified["damaged_segments"]) == (ok, [] if ok else [13])


def test_a_kill_stops_it_and_nothing_is_written() -> None:
    with serving() as (store, served):
        stop = threading.Event()
        store.patience.stop = stop

        class Killing(Lines):
            def info(self, text: str, *args: object) -> None:
                super().info(text, *args)
                if self.lines[-1] == "Read":
                    stop.set()

        with pytest.raises(Cancelled, match="verify again"):
            verified(store, CHECKSUMS, Killing(), max_bytes_per_second=1)
        assert VERIFIED not in served.keys


# ---- samples, and arguments -------------------------------------------------------------------------------------------------------


def test_a_rota_reads_everything_once_and_each_result_says_which_part_it_is_of() -> None:
    with serving() as (store, served):
        read, segments = list[str](), 0
        for part in range(1, 4):
            served.reads.clear()
            found = verified(store, BINLOGS, sample=f"{part}/3")
            mine = [key for key in served.reads if "/binlogs/" in key]
            assert (found.ok, found.sample, found.read_objects) == (True, f"{part}/3", len(mine))
            read += mine
            segments += found.segments
            (entry,) = read_catalog(store).entries
            assert entry.verified
            assert entry.verified["sample"] == f"{part}/3"
        assert sorted(read) == sorted(f"{BACKUPS}/{NAME}/{key}" for key in contents())
        assert segments == sum(map(len, SEGMENTS.values())) + 1


def test_a_percentage_reads_whole_segments_and_never_nothing() -> None:
    with serving() as (store, _):
        found = verified(store, BINLOGS, sample="0.001%", seed="a")
        assert (found.segments, found.ok) == (1, True)
        again = verified(store, BINLOGS, sample="0.001%", seed="a")
        assert again.read_bytes == found.read_bytes
        assert verified(store, BINLOGS, sample="100%").read_objects == len(contents())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"level": "deep"}, "level 'deep' is not one of objects, checksums, binlogs"),
        ({"level": OBJECTS, "sample": "1/2"}, "sample '1/2' means nothing at level 'objects'"),
        ({"level": OBJECTS, "max_bytes_per_second": 5}, "max_bytes_per_second 5 means nothing at level 'objects'"),
        ({"level": CHECKSUMS, "sample": "4/3"}, "sample '4/3'"),
        ({"level": CHECKSUMS, "sample": ""}, "sample ''"),
        ({"level": CHECKSUMS, "max_bytes_per_second": 0}, "max_bytes_per_second 0"),
        ({"level": CHECKSUMS, "max_bytes_per_second": "fast"}, "max_bytes_per_second 'fast'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_before_anything_is_asked(arguments: dict[str, Any], said: str) -> None:
    with serving() as (store, served):
        with pytest.raises(ConfigError, match=said):
            verified(store, **arguments)
        assert not served.requests


def test_a_backup_that_is_not_there_or_not_complete_is_not_found_and_no_lease_makes_it_one() -> None:
    with serving() as (store, served):
        served.remove(MARK)
        before = served.keys
        with pytest.raises(BackupNotFound, match="'nightly' does not exist"):
            verified(store)
        assert served.keys == before
