"""The lines of a preflight about storage, against stores that are wrong in one way each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import check_probes, check_storage
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.check_subject import PROBES, STAGED_PROBES, ProbedServer, Subject
from airflow_provider_milvus_backup.core.checking import FAIL, PASS, SKIP, WARN, Check, Finding, Line, run
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import CollectionName, check_backup_name
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.server import ServerSegment
from airflow_provider_milvus_backup.core.settings import Settings
from benchmarks.collection import BACKUPS, BUCKET, PARTITION, ROOT, ReportedMilvus, Shape, location
from benchmarks.slow_s3 import Answer, in_thread
from tests.unit.deletion_store import DENIED, THEN
from tests.unit.lock_store import EXPIRING, NONE, UNVERSIONED, LockStore, default
from tests.unit.test_lease import Lines

SHAPE = Shape(segments=2, logs=1)
NAME = CollectionName("default", "coll")
MILVUS = {key.removeprefix(f"{BUCKET}/"): b"x" * size for key, size in SHAPE.sizes().items()}
ALL = (*check_storage.MILVUS, *check_storage.BACKUPS, *check_probes.BACKUPS, check_probes.STAGING, check_storage.CLOCKS)


class Server(ReportedMilvus, ProbedServer):
    """Reports the segments of the shape, and the time as it is, or ``ahead``."""

    ahead = 0.0

    def timestamp(self) -> int:
        return int((datetime.now(timezone.utc).timestamp() + self.ahead) * 1000) << 18


class Faulty(LockStore):
    """Has Milvus's objects and is wrong in what a test asks for."""

    #: Seconds by which its clock is ahead.
    ahead = 0.0
    conditions = copies = True
    #: What is read instead of what was written, and a size that copies get.
    reads: bytes | None = None
    deletes = True

    def answer(self, head: str, body: bytes) -> Answer:
        """Answer one request."""
        if not self.conditions:
            head = head.replace("if-none-match", "x-ignored").replace("if-match", "x-ignored")
        if not self.deletes:
            self.refused = {key.decode(): "AccessDenied: Access Denied" for key in re.findall(rb"<Key>([^<]*)</Key>", body)}
        answer = super().answer(head, body)
        if self.reads is not None and head.startswith("GET") and head.split(" ")[1].endswith("/written"):
            answer = answer._replace(body=self.reads)
        now = datetime.fromtimestamp(datetime.now(timezone.utc).timestamp() + self.ahead, timezone.utc)
        return answer._replace(headers=f"{answer.headers}Date: {format_datetime(now, usegmt=True)}\r\n")

    def copy(self, source: str, destination: str) -> Answer:
        """Copy one object."""
        return super().copy(source, destination) if self.copies else DENIED


class Place:
    """Both ends of one preflight, in one store."""

    def __init__(self, store: Faulty, endpoint: str) -> None:
        self.store, self.endpoint, self.log = store, endpoint, Lines()
        self.milvus = location(endpoint, ("key", "secret"), ROOT)
        self.backups = location(endpoint, ("key", "secret"), BACKUPS)

    def subject(self, server: ProbedServer | None = None, **settings: Any) -> Subject:
        asked = server or Server(SHAPE)
        made = Subject.open(Settings(asked.address, self.milvus, self.backups, **settings), Reporter(self.log), Patience(), [])
        made.server = made.ends.server = asked
        made.selected = [NAME]
        made.lines += [Line(name, PASS, "") for name in ("milvus.connect", "milvus.login", "milvus.collections")]
        return made

    def lines(self, subject: Subject | None = None, checks: tuple[Check[Subject], ...] = ALL) -> dict[str, Line]:
        """Run these checks, and return their lines by name."""
        asked = subject or self.subject()
        run(checks, asked, Reporter(self.log), lines=asked.lines)
        check_probes.remove(asked)
        return {line.name: line for line in asked.lines}

    def probes(self) -> set[str]:
        return {key for key in self.store.keys if PROBES in key or key.startswith("restore-temp-")}


@pytest.fixture
def place() -> Iterator[Place]:
    with serving() as made:
        yield made


@contextmanager
def serving(objects: dict[str, bytes] | None = None) -> Iterator[Place]:
    store = Faulty(MILVUS if objects is None else objects)
    store.says["object-lock"], store.says["versioning"] = NONE, UNVERSIONED
    with in_thread(store) as endpoint:
        yield Place(store, endpoint)


def by_status(lines: dict[str, Line]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines.values():
        if not line.name.startswith("milvus."):
            found.setdefault(line.status, []).append(line.name)
    return found


def test_where_all_is_well_all_passes_and_nothing_is_left(place: Place) -> None:
    checks = tuple(check for check in ALL if check.name != "backup_storage.multipart")  # the stub has no copies in parts
    lines = place.lines(checks=checks)
    assert by_status(lines) == {
        PASS: [check.name for check in checks if check.name not in ("backup_storage.versioning", "backup_storage.object_lock")],
        SKIP: ["backup_storage.versioning", "backup_storage.object_lock"],
    }
    assert "is the bucket of milvus_storage.versioning" in lines["backup_storage.versioning"].message
    assert place.store.keys == set(MILVUS)


def test_a_probe_that_was_not_written_by_wish_is_not_missed(place: Place) -> None:
    subject = place.subject()
    subject.left_out = frozenset({"backup_storage.write"})
    checks = tuple(check for check in check_probes.BACKUPS if check.name in ("backup_storage.read", "backup_storage.delete"))
    there = [Line("backup_storage.write", SKIP, "left out")]
    asked = run(checks, subject, Reporter(place.log), skip={"backup_storage.write": "left out"}, lines=there)
    assert [(line.name, line.status) for line in asked[1:]] == [("backup_storage.read", SKIP), ("backup_storage.delete", PASS)]
    assert "skip names backup_storage.write" in asked[1].message


# ---- whose bucket it is ------------------------------------------------------------------------------------------------------


def test_a_root_path_that_is_another_one_fails_and_the_right_one_is_named(place: Place) -> None:
    place.milvus = replace(place.milvus, root_path="other")
    line = place.lines()["milvus_storage.segment"]
    assert (line.status, line.passing) == (FAIL, False)
    assert "Milvus reports 2 segments of default.coll" in line.message
    assert "they lie below 'files'" in line.message
    assert line.remedy == "set root_path of the Milvus connection to 'files'"


def test_a_bucket_without_the_segment_fails_and_what_needs_it_is_not_checked() -> None:
    with serving({}) as place:
        lines = place.lines()
        assert place.probes() == set()
    assert lines["milvus_storage.list"].status == WARN
    assert lines["milvus_storage.segment"].status == FAIL
    assert "correct bucket_name 'a-bucket' or root_path 'files'" in lines["milvus_storage.segment"].remedy
    assert {name: lines[name].status for name in ("milvus_storage.read", "backup_storage.copy")} == {
        "milvus_storage.read": SKIP,
        "backup_storage.copy": SKIP,
    }
    assert (lines["restore.staging"].status, lines["backup_storage.write"].status) == (WARN, PASS)
    assert "not proven is that Milvus reads this bucket" in lines["restore.staging"].message


class Compacting(Server):
    """Has compacted its segments into those of the shape when it is asked again."""

    asked = 0

    def segments(self, name: CollectionName) -> list[ServerSegment]:
        self.asked += 1
        return [ServerSegment(7, PARTITION, 5, is_l0=False, storage_version=0, v_channel="")] if self.asked == 1 else super().segments(name)


class Reporting(Server):
    """Reports one segment as a test wants it."""

    wanted = ServerSegment(7, PARTITION, 0, is_l0=False, storage_version=0, v_channel="")

    def segments(self, name: CollectionName) -> list[ServerSegment]:
        return [self.wanted]


def test_segments_that_were_compacted_in_this_moment_are_looked_for_again(place: Place) -> None:
    assert place.lines(place.subject(Compacting(SHAPE)))["milvus_storage.segment"].status == PASS


@pytest.mark.parametrize(
    "segment",
    [
        ServerSegment(7, PARTITION, 0, is_l0=False, storage_version=0, v_channel=""),
        ServerSegment(7, PARTITION, 5, is_l0=True, storage_version=0, v_channel=""),
        ServerSegment(7, PARTITION, 5, is_l0=False, storage_version=3, v_channel=""),
    ],
)
def test_without_a_sealed_segment_that_can_be_copied_nothing_is_proven_and_nothing_passes_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, segment: ServerSegment
) -> None:
    monkeypatch.setattr(Reporting, "wanted", segment)
    lines = place.lines(place.subject(Reporting(SHAPE)))
    assert (lines["milvus_storage.segment"].status, lines["milvus_storage.read"].status) == (WARN, SKIP)
    assert "no sealed segment" in lines["milvus_storage.segment"].message
    assert lines["backup_storage.copy"].status == SKIP
    assert lines["backup_storage.multipart"].message == "large objects can be uploaded in parts"


# ---- copying -----------------------------------------------------------------------------------------------------------------


def test_copies_that_go_through_the_worker_are_a_warning_with_numbers(place: Place) -> None:
    place.store.copies = False
    line = place.lines()["backup_storage.copy"]
    assert (line.status, line.remedy) == (WARN, "let that key read Milvus's bucket as well")
    assert "go through this worker, because the backup storage's key may not read Milvus's bucket" in line.message
    assert "100 GiB would take" in line.message
    asked_for = place.lines(place.subject(streaming=True))["backup_storage.copy"]
    assert "as asked for (streaming)" in asked_for.message
    assert place.store.keys == set(MILVUS)


def test_a_store_that_copies_something_else_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(self: Faulty, source: str, destination: str) -> Answer:
        shorter = self.objects[source]._replace(size=1, content=b"x")
        self._put(destination, shorter)
        return Answer(body=b'<CopyObjectResult><ETag>"e"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>')

    monkeypatch.setattr(Faulty, "copy", copy)
    line = place.lines()["backup_storage.copy"]
    assert line.status == FAIL
    assert "has 1 bytes instead of" in line.message


def test_a_bucket_in_milvuss_own_root_path_is_refused_before_a_probe_is_written(place: Place) -> None:
    place.backups = replace(place.backups, root_path=f"{ROOT}/backup")
    lines = place.lines()
    assert lines["backup_storage.place"].status == FAIL
    assert {lines[check.name].status for check in check_probes.BACKUPS} == {SKIP}
    assert place.store.keys == set(MILVUS)


# ---- what a key may, and what a store does -----------------------------------------------------------------------------------


def test_a_store_that_reads_back_something_else_fails(place: Place) -> None:
    place.store.reads = b"y" * check_probes.SIZE
    line = place.lines()["backup_storage.read"]
    assert (line.status, line.message) == (FAIL, "a probe was read with another content than it was written with")


def test_a_store_that_does_not_know_conditions_is_a_warning(place: Place) -> None:
    place.store.conditions = False
    line = place.lines()["backup_storage.conditional"]
    assert line.status == WARN
    assert "never run two backups under one name" in line.remedy


def test_a_key_that_may_not_delete_fails_and_names_the_permission(place: Place) -> None:
    place.store.deletes = False
    lines = place.lines()
    for name in ("backup_storage.delete", "restore.staging"):
        assert (lines[name].status, lines[name].passing, "delete" in lines[name].remedy) == (FAIL, False, True)
    assert any("could not remove the probes" in line for line in place.log.lines)


def test_a_key_that_may_not_write_is_told_so_and_nothing_depends_on_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Faulty.answer
    monkeypatch.setattr(Faulty, "answer", lambda self, head, body: DENIED if head.startswith("PUT") else answers(self, head, body))
    lines = place.lines()
    assert by_status(lines)[FAIL] == ["backup_storage.write", "restore.staging"]
    assert "s3:PutObject" in lines["backup_storage.write"].remedy
    assert lines["milvus_storage.segment"].status == lines["clocks"].status == PASS


def test_a_bucket_that_does_not_exist_fails_and_leaves_the_other_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Faulty.answer
    absent = Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
    monkeypatch.setattr(
        Faulty, "answer", lambda self, head, body: absent if head.split(" ")[1].startswith("/vault") else answers(self, head, body)
    )
    place.backups = replace(place.backups, bucket="vault")
    lines = place.lines()
    assert lines["backup_storage.list"].status == FAIL
    assert "the bucket does not exist" in lines["backup_storage.list"].message
    assert {lines[check.name].status for check in check_probes.BACKUPS} == {SKIP}
    assert lines["milvus_storage.segment"].status == lines["restore.staging"].status == PASS


def test_versions_and_locks_of_a_bucket_are_warnings_where_they_cost(place: Place) -> None:
    def found(**says: Answer) -> dict[str, Finding]:
        place.store.says |= {key.replace("_", "-"): answer for key, answer in says.items()}
        asked = place.subject()
        return {"versions": check_storage.milvus_versioning(asked), "locks": check_storage.milvus_lock(asked)}

    versioned = Answer(body=b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
    kept = found(versioning=versioned)["versions"]
    assert (kept.status, "NoncurrentVersionExpiration" in kept.remedy) == (WARN, True)
    assert found(lifecycle=EXPIRING)["versions"].status == PASS
    assert found(versioning=DENIED)["versions"].status == WARN
    assert found(object_lock=LockStore({}).says["object-lock"])["locks"].message.endswith("object_lock_days can be used")
    by_default = found(object_lock=default(30))["locks"]
    assert by_default.status == WARN
    assert "locks every object for 30 days (GOVERNANCE)" in by_default.message
    assert found(object_lock=DENIED, versioning=versioned)["locks"].status == WARN


# ---- clocks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "status", "said"),
    [
        ({}, WARN, "neither Milvus nor a store tells the time"),
        ({"Milvus": 0.4, "the store": -1.5}, PASS, "against this worker's clock: Milvus is right, the store is right"),
        ({"Milvus": 30.0, "the store": -29.0}, PASS, "the store is 29 s behind"),
        ({"Milvus": 31.0, "the store": -29.0}, WARN, "Milvus is 31 s ahead, the store is 29 s behind"),
        ({"Milvus": -61.0}, WARN, "Milvus is 1 min 01 s behind"),
        ({"the store": 901.0}, FAIL, "stores refuse requests that are 15 min 00 s off"),
        ({"the store": -901.0}, FAIL, "the store is 15 min 01 s behind"),
    ],
)
def test_clocks_are_compared_with_the_workers_and_with_each_other(ahead: dict[str, float], status: str, said: str) -> None:
    found = check_storage.compared(ahead)
    assert (found.status, said in found.message) == (status, True), found
    assert bool(found.remedy) == (status != PASS)


def test_the_clocks_are_those_of_the_stores_and_of_milvus(place: Place) -> None:
    place.store.ahead, server = 3630.0, Server(SHAPE)
    server.ahead = -7230.0
    line = place.lines(place.subject(server), (check_storage.CLOCKS,))["clocks"]
    assert line.status == FAIL
    for said in ("the backup storage is 1 h 00 min ahead", "Milvus's storage is 1 h 00 min ahead", "Milvus is 2 h 00 min behind"):
        assert said in line.message, line.message


# ---- what is left ------------------------------------------------------------------------------------------------------------


def test_probes_of_other_runs_stay_while_they_may_be_alive_and_go_when_they_are_an_hour_old() -> None:
    others = {f"{BACKUPS}/{PROBES}/other/written": b"x", f"{STAGED_PROBES}other/written": b"x"}
    with serving({**MILVUS, **others}) as place:
        for minutes, left in ((59, set(others)), (61, set())):
            place.store.ahead = (THEN + timedelta(minutes=minutes) - datetime.now(timezone.utc)).total_seconds()
            place.lines()
            assert place.store.keys == {*MILVUS, *left}


def test_a_run_that_stops_in_the_middle_leaves_nothing(place: Place) -> None:
    asked = place.subject()
    assert check_probes.write(asked).status == check_probes.staging(asked).status.replace(WARN, PASS) == PASS
    assert place.probes()
    check_probes.remove(asked)
    assert place.probes() == set()


def test_no_tool_takes_the_probes_for_a_backup(place: Place) -> None:
    asked = place.subject()
    check_probes.write(asked)
    assert read_catalog(asked.ends.backups, unfinished=True).entries == []
    with pytest.raises(ConfigError):
        check_backup_name(PROBES)


def test_what_cannot_be_removed_is_a_warning_and_no_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = place.subject()
    check_probes.write(asked)
    monkeypatch.setattr(Faulty, "answer", lambda *_: DENIED)
    check_probes.remove(asked)
    assert any("could not remove the probes below" in line for line in place.log.lines)


def test_the_lines_are_small_and_name_no_secret(place: Place) -> None:
    place.backups = location(place.endpoint, ("AKKEY", "the-very-secret"), BACKUPS)
    place.store.copies = False
    lines = place.lines()
    text = json.dumps([line.to_dict() for line in lines.values()]) + "\n".join(place.log.lines)
    assert "the-very-secret" not in text
    assert len(text) < 20_000
