"""A backup that was interrupted goes on where it stopped, and what `if_exists` makes of a name that is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import backup as engine
from airflow_provider_milvus_backup.core import committing, layout
from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.copier import Copy
from airflow_provider_milvus_backup.core.errors import (
    BackupError,
    BackupExists,
    BackupInUse,
    BackupNotFound,
    Cancelled,
    ConfigError,
    TakenOver,
    WaitTimeout,
)
from airflow_provider_milvus_backup.core.lease import Lease, Owner
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore, StoredObject
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, B_BUCKET, Cluster, admin, everything, listing, location

NAME = CollectionName("default", "resumed")
TASK = Owner("dag/run/task/-1", 0, 1)
RETRY = replace(TASK, attempt=2)
CLEARED = replace(TASK, round=2, attempt=3)
STRANGER = Owner("dag/other run/task/-1", 0, 1)


class Stopped(Exception):
    """Ends an attempt at a chosen moment, as a crash would: nothing of ours runs after it but `finally`."""


@pytest.fixture(scope="module", autouse=True)
def shape(a: Cluster) -> Iterator[data.Collection]:
    shape = data.docs("resumed")
    a.create(shape, range(40), load=True)
    shape.insert(a.client(), range(100, 130))
    a.client().delete("resumed", ids=[1, 2, 3])
    data.flush(a.server, [shape])
    yield shape
    a.drop(NAME, NAME._replace(collection="resumed_bak"))


def attempt(a: Cluster, name: str, objects: int, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Run an attempt that dies when so many objects are copied."""

    def some(source: Any, destination: Any, copies: Iterator[Copy], *args: Any, **options: Any) -> None:
        original(source, destination, [copy for _, copy in zip(range(objects), copies, strict=False)], *args, **options)
        raise Stopped

    original = engine.copy_objects
    with monkeypatch.context() as patch:
        patch.setattr(engine, "copy_objects", some)
        with pytest.raises(Stopped):
            a.backup(name, "resumed", **{"owner": TASK, **more})


def copied(a: Cluster, since: int) -> int:
    """Return how many objects were copied according to the log since a line."""
    (line,) = [line for line in a.log.lines[since:] if line.startswith("copied ") and " / " not in line]
    return int(line.split()[1].replace(",", ""))


def restored(a: Cluster, name: str, **more: Any) -> data.Contents:
    a.drop(NAME._replace(collection="resumed_bak"))
    a.restore(name, suffix="_bak", load="always", **more)
    return a.contents(NAME._replace(collection="resumed_bak"), load=False)


def test_a_retry_copies_only_what_is_missing_and_says_so(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(a, "halfway", 5, monkeypatch)
    with pytest.raises(BackupNotFound):
        read_backup(ObjectStore(a.backups), "halfway")
    before = len(a.log.lines)
    summary = a.backup("halfway", "resumed", owner=RETRY)
    assert copied(a, before) == summary["objects"] - 5
    assert "5 objects of the earlier attempt are used again" in a.log.lines[before:]
    assert "going on with the unfinished attempt of dag/run/task/-1, try 1" in a.log.lines
    assert restored(a, "halfway") == a.contents(NAME, load=False)


def test_an_object_that_is_not_provably_the_same_is_copied_again_with_the_reason(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(a, "doubtful", 6, monkeypatch)
    keys = sorted(listing(a.s3, A_BUCKET, "backup/doubtful/binlogs/"))
    for key, body in ((keys[0], b"x"), (keys[1], bytes(listing(a.s3, A_BUCKET, keys[1])[keys[1]][0]))):
        admin(a.s3).put_object(Bucket=A_BUCKET, Key=key, Body=body)
    admin(a.s3).put_object(Bucket=A_BUCKET, Key="backup/doubtful/binlogs/insert_log/1/2/3/3/0/4", Body=b"of a segment that is gone")
    # The recorded ETag would vouch for the second one, whose size is right: this is what a plan that was lost looks like.
    admin(a.s3).delete_object(Bucket=A_BUCKET, Key="backup/doubtful/provider/plan.json")
    before = len(a.log.lines)
    summary = a.backup("doubtful", "resumed", owner=RETRY)
    line = next(line for line in a.log.lines[before:] if "of the earlier attempt" in line)
    assert line == (
        "4 objects of the earlier attempt are used again; copied again: 1 of another size, 1 not provably the same"
        "; removed because no longer part of the backup: 1"
    ) or sorted(line.split("; ")) == sorted(
        [
            "4 objects of the earlier attempt are used again",
            "copied again: 1 not provably the same, 1 of another size",
            "removed because no longer part of the backup: 1",
        ]
    )
    assert copied(a, before) == summary["objects"] - 4
    assert restored(a, "doubtful") == a.contents(NAME, load=False)


def test_copies_between_two_stores_are_recognized_by_the_recorded_etag(
    a: Cluster, other_s3: servers.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in parts or through this process has an ETag of its own; here the store is even asked to forget the source's."""
    elsewhere = replace(a.settings, backup_storage=location(other_s3, B_BUCKET, "resumed"))
    attempt(a, "elsewhere", 4, monkeypatch, settings=elsewhere)
    key = min(listing(other_s3, B_BUCKET, "resumed/elsewhere/binlogs/"))
    body = admin(other_s3).get_object(Bucket=B_BUCKET, Key=key)["Body"].read()
    upload = admin(other_s3).create_multipart_upload(Bucket=B_BUCKET, Key=key)["UploadId"]
    part = admin(other_s3).upload_part(Bucket=B_BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    admin(other_s3).complete_multipart_upload(Bucket=B_BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)
    assert "-1" in listing(other_s3, B_BUCKET, key)[key][1]  # an ETag that no source has
    before = len(a.log.lines)
    summary = a.backup("elsewhere", "resumed", owner=RETRY, settings=elsewhere)
    assert copied(a, before) == summary["objects"] - 4


def test_an_object_that_the_listing_leaves_out_is_written_anew_by_the_next_try(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a SeaweedFS that was killed: what is written over the object does not come into the listing, either."""
    hidden = set[str]()

    def objects(store: ObjectStore, prefix: str) -> Iterator[StoredObject]:
        if prefix == "backup/unlisted/binlogs/" and not hidden:
            hidden.add(max(item.key for item in listed(store, prefix)))
        return (item for item in listed(store, prefix) if item.key not in hidden)

    attempt(a, "unlisted", 5, monkeypatch)
    listed = ObjectStore.objects
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "objects", objects)
        with pytest.raises(BackupError, match=r"1 objects are missing .*run the backup again under the same name"):
            a.backup("unlisted", "resumed", owner=RETRY)
    assert not hidden & set(listing(a.s3, A_BUCKET, "backup/unlisted/binlogs/"))
    a.backup("unlisted", "resumed", owner=RETRY)
    assert restored(a, "unlisted") == a.contents(NAME, load=False)


def test_rows_written_between_the_tries_are_in_the_backup(a: Cluster, shape: data.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(a, "later_rows", 8, monkeypatch)
    shape.insert(a.client(), range(500, 510))
    a.client().delete("resumed", ids=[4])
    a.backup("later_rows", "resumed", owner=RETRY)
    found = restored(a, "later_rows")
    assert found == a.contents(NAME, load=False)
    assert set(range(500, 510)) <= set(found["_default"])


def test_a_retry_after_the_commit_returns_the_same_summary(a: Cluster) -> None:
    first = a.backup("committed", "resumed", owner=TASK)
    before = listing(a.s3, A_BUCKET, "backup/committed/")
    assert a.backup("committed", "resumed", owner=RETRY) == first
    assert listing(a.s3, A_BUCKET, "backup/committed/") == before


@pytest.mark.parametrize("owner", [STRANGER, CLEARED], ids=["another run", "the task after a clear"])
def test_a_finished_backup_is_refused_skipped_or_replaced(a: Cluster, shape: data.Collection, owner: Owner) -> None:
    name = f"finished_{owner.round}"
    first = a.backup(name, "resumed", owner=TASK)
    before = everything(a)
    with pytest.raises(BackupExists, match=r"already exists in s3://a-bucket/backup .*if_exists='skip'"):
        a.backup(name, "resumed", owner=owner)
    assert a.backup(name, "resumed", if_exists="skip", owner=owner) == first
    assert a.backup(name, "resumed", if_exists="resume", owner=owner) == first
    assert everything(a) == before

    shape.insert(a.client(), range(600 + 10 * owner.round, 605 + 10 * owner.round))
    a.client().delete("resumed", ids=[10 + owner.round])
    again = a.backup(name, "resumed", if_exists="replace", owner=owner)
    assert again != first
    keys = [key for key in listing(a.s3, A_BUCKET, f"backup/{name}/") if "/provider/" not in key and "/meta/" not in key]
    assert len(keys) == again["objects"]  # nothing of the old one is left
    assert restored(a, name) == a.contents(NAME, load=False)


@pytest.mark.parametrize("moment", ["copy", "commit"])
def test_until_the_new_one_is_committed_the_replaced_backup_stays_whole(
    a: Cluster, shape: data.Collection, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    name = f"whole_{moment}"
    a.backup(name, "resumed", owner=TASK)
    old, old_rows = read_backup(ObjectStore(a.backups), name), a.contents(NAME, load=False)
    content = {
        key: admin(a.s3).get_object(Bucket=A_BUCKET, Key=key)["Body"].read()
        for key in listing(a.s3, A_BUCKET, f"backup/{name}/binlogs/")
    }
    a.client().delete("resumed", ids=[20 if moment == "copy" else 21])  # a further delta log for a segment that is in the backup
    if moment == "copy":
        attempt(a, name, 5, monkeypatch, if_exists="replace", owner=STRANGER)
    else:
        monkeypatch.setattr(committing, "write_meta", lambda *_: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            a.backup(name, "resumed", if_exists="replace", owner=STRANGER)
        monkeypatch.undo()
    assert read_backup(ObjectStore(a.backups), name) == old
    for key, body in content.items():
        assert admin(a.s3).get_object(Bucket=A_BUCKET, Key=key)["Body"].read() == body
    assert restored(a, name) == old_rows
    a.backup(name, "resumed", if_exists="replace", owner=replace(STRANGER, attempt=2))
    assert restored(a, name) == a.contents(NAME, load=False) != old_rows


def test_a_replaced_backup_that_is_being_restored_keeps_its_objects(a: Cluster) -> None:
    a.backup("read", "resumed", owner=TASK)
    before = set(listing(a.s3, A_BUCKET, "backup/read/binlogs/"))
    reader = Lease(ObjectStore(a.backups), layout.lease_key("backup", "read", "0123456789abcdef"), STRANGER, "restore", Reporter(a.log))
    reader.take()
    reader.renew(3600)  # nobody does so later, and it must not run out meanwhile
    a.client().delete("resumed", ids=[30])
    a.backup("read", "resumed", if_exists="replace", owner=STRANGER)
    assert before <= set(listing(a.s3, A_BUCKET, "backup/read/binlogs/"))
    assert any("stay until the next replacement, for it is in use by dag/other run/task/-1" in line for line in a.log.lines)
    assert restored(a, "read") == a.contents(NAME, load=False)  # what lies beside it does no harm
    reader.give_up()
    a.client().delete("resumed", ids=[31])
    summary = a.backup("read", "resumed", if_exists="replace", owner=replace(STRANGER, round=1))
    assert len(listing(a.s3, A_BUCKET, "backup/read/binlogs/")) == summary["objects"]


def test_somebody_elses_unfinished_attempt_is_refused_unless_asked_for(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(a, "somebodys", 3, monkeypatch)
    before = everything(a)
    with pytest.raises(BackupExists, match=r"begun by dag/run/task/-1, try 1 and not finished.*if_exists='resume'"):
        a.backup("somebodys", "resumed", owner=STRANGER)
    assert everything(a) == before
    since = len(a.log.lines)
    summary = a.backup("somebodys", "resumed", if_exists="resume", owner=STRANGER)
    assert "going on with the unfinished attempt of dag/run/task/-1, try 1" in a.log.lines[since:]
    # Three, unless Milvus has compacted their segments away meanwhile, for rows were deleted before.
    (kept,) = [int(line.split()[0]) for line in a.log.lines[since:] if "of the earlier attempt" in line]
    assert copied(a, since) == summary["objects"] - kept


def test_an_unknown_if_exists_is_refused(a: Cluster) -> None:
    before = everything(a)
    with pytest.raises(ConfigError, match="if_exists 'overwrite' is not one of fail, resume, skip, replace"):
        a.backup("unknown", "resumed", if_exists="overwrite")
    assert everything(a) == before


def test_two_writers_at_once_are_kept_apart_and_the_dead_one_is_taken_over(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = ObjectStore(a.backups), layout.lease_key("backup", "leased")
    held = Lease(store, key, STRANGER, "write backup 'leased'", Reporter(a.log))
    held.holding = replace(held.holding, host="elsewhere")
    held.take()
    held.renew(3600)
    message = r"dag/other run/task/-1, try 1 \(process \d+ on .*\) is about to write .* its lease ends in (1 h 00 min|5\d min \d\d s)"
    with pytest.raises(BackupInUse, match=message):
        a.backup("leased", "resumed", owner=TASK)
    held.renew(0.5)
    data.wait_until(lambda: store.age(key) >= 1)
    a.backup("leased", "resumed", owner=TASK)
    assert any("took over from dag/other run/task/-1, try 1 (process" in line for line in a.log.lines)
    with pytest.raises(TakenOver):
        held.renew()
    held.give_up()
    assert key not in listing(a.s3, A_BUCKET, "backup/leased/")


def test_a_run_that_lost_its_lease_does_not_commit(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = BackupRun.open(a.settings, Reporter(a.log), owner=TASK)
    original = BackupRun.commit

    def overtaken(self: BackupRun, *args: Any, **more: Any) -> Any:
        Lease(self.destination, layout.lease_key("backup", "overtaken"), RETRY, "write backup 'overtaken'", Reporter(a.log)).take()
        return original(self, *args, **more)

    monkeypatch.setattr(BackupRun, "commit", overtaken)
    with pytest.raises(TakenOver, match="this one, dag/run/task/-1, try 1"):
        run.backup("overtaken", "resumed")
    monkeypatch.undo()
    with pytest.raises(BackupNotFound):
        read_backup(ObjectStore(a.backups), "overtaken")
    run.server.close()
    a.backup("overtaken", "resumed", owner=replace(TASK, attempt=3))


def test_a_timeout_says_what_was_going_on_and_the_retry_finishes(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = BackupRun.open(a.settings, Reporter(a.log), owner=TASK)

    def not_yet(*_: Any) -> bool:
        run.patience.deadline = 0.0
        return False

    monkeypatch.setattr(type(run.server), "flush_done", not_yet)
    with pytest.raises(WaitTimeout, match=r"out of time while Milvus was flushing default.resumed; a retry begins with the flush again"):
        run.backup("timed_out", "resumed")
    run.server.close()
    monkeypatch.undo()
    assert a.backup("timed_out", "resumed", owner=RETRY)["rows"] > 0


def test_a_kill_while_copying_leaves_no_backup_and_the_retry_finishes(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = BackupRun.open(a.settings, Reporter(a.log), owner=TASK)
    original = engine.copy_objects

    def killed(*args: Any, **more: Any) -> None:
        run.patience.stop.set()
        original(*args, **more)

    monkeypatch.setattr(engine, "copy_objects", killed)
    with pytest.raises(Cancelled, match=r"stopped while (copying|the backup was about to be committed)"):
        run.backup("killed", "resumed")
    run.server.close()
    monkeypatch.undo()
    with pytest.raises(BackupNotFound):
        read_backup(ObjectStore(a.backups), "killed")
    assert layout.lease_key("backup", "killed") not in listing(a.s3, A_BUCKET, "backup/killed/")
    a.backup("killed", "resumed", owner=RETRY)
    assert restored(a, "killed") == a.contents(NAME, load=False)
