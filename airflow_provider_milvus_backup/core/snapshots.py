"""Snapshots of Milvus 3.0: exported into a backup, and restored out of one.

The export: CreateSnapshot freezes what is flushed, ExportSnapshot lets Milvus copy it, DropSnapshot lets go of it (``core/backup`` of
milvus-backup). Milvus protects the files of a snapshot from its garbage collector for as long as there is one, so none may be forgotten.
The restore: RestoreExternalSnapshot makes a collection, with its indexes and data, in a job that is polled like an import.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from . import layout, snapshot_plan
from .capabilities import Capability, first_release
from .ends import Ends
from .errors import MilvusBackupError, ServerError, ServerUnreachable, SourceChanged, UnsupportedServer
from .imports import FIRST_POLL, JobState, JobStatus, next_poll
from .meta import Backup, Collection, SnapshotBackup
from .names import CollectionName
from .patience import Backoff
from .report import Reporter
from .restore_plan import RestoreOptions
from .rpc import messages
from .server import MilvusServer
from .snapshot_plan import Keys, SnapshotPlace, Store
from .store import ObjectStore, StoredObject

#: Milvus lets go of an exported snapshot a moment after it has said that the export is over.
DROP_TRIES = 10
DROP_PAUSE = 1.0
#: Seconds between two looks at an export at most.
LONGEST_POLL = 3.0
#: Seconds that Milvus may take to make a collection before the restore gives up.
LONGEST_ANSWER = 600.0
#: ErrServiceUnimplemented of ``pkg/util/merr``.
_UNIMPLEMENTED = 10

E = TypeVar("E", bound=ServerError)


# ---- whether it can ------------------------------------------------------------------------------------------------------------


def probe(server: MilvusServer) -> bool:
    """Return whether this Milvus exports and restores snapshots, and write it down among its capabilities.

    It is asked for an export job that cannot be. 3.0.0 does not know the request, which came together with everything else (milvus #52476);
    whoever lacks the privilege to export is told so only by a Milvus that knows it.

    :raises ServerUnreachable: it does not answer
    """
    try:
        _ask(server, "GetExportSnapshotState", {"job_id": 0}, "ask about snapshots")
    except ServerUnreachable:
        raise
    except UnsupportedServer:
        works = False
    except ServerError:
        works = True
    else:
        works = True
    server.capabilities.learn(Capability.SNAPSHOTS, works)
    return works


def check_server(server: MilvusServer, what: str, remedy: str) -> None:
    """Raise UnsupportedServer where this Milvus, or the installed pymilvus, has no snapshots to export and restore.

    :param what: what needs them
    :param remedy: what to do instead
    """
    _request("GetExportSnapshotState")
    if not probe(server):
        raise UnsupportedServer(
            f"{what} needs a Milvus that can {Capability.SNAPSHOTS.value}, which is {first_release(Capability.SNAPSHOTS)} or newer; "
            f"Milvus at {server.address} is version {server.version} and does not know how. {remedy}"
        )


def check_snapshot_restore(backup: Backup, collections: Sequence[Collection], options: RestoreOptions, ends: Ends) -> None:
    """Refuse what cannot be restored out of a backup in snapshot format; changes nothing.

    :param collections: those to restore
    :raises ConfigError: options that mean nothing here, or storage that Milvus cannot reach
    :raises UnsupportedServer: this Milvus cannot restore snapshots
    :raises BackupDamaged: a snapshot is incomplete
    """
    snapshot_plan.check_options(backup, collections, options)
    remedy = "Restore into such a Milvus; an older one takes backups in binlog format only"
    check_server(ends.server, f"backup {backup.name!r} is in snapshot format and", remedy)
    for collection in collections:
        source(ends, backup.name, collection)
    snapshot_plan.check_bundles(backup, collections, bundle_objects(ends.backups, backup.name))


# ---- where -----------------------------------------------------------------------------------------------------------------


def bundle_objects(store: ObjectStore, backup_name: str) -> dict[str, int]:
    """Return the size of every object below ``bundle/`` of a backup, by its key relative to the backup."""
    directory = layout.backup_dir(store.location.root_path, backup_name)
    return {item.key.removeprefix(directory): item.size for item in store.objects(f"{directory}{snapshot_plan.BUNDLE}")}


def check_exported(store: ObjectStore, backup: Backup) -> list[StoredObject]:
    """Return the objects of all bundles of a backup; raises BackupDamaged where some are missing."""
    directory = layout.backup_dir(store.location.root_path, backup.name)
    found = {item.key.removeprefix(directory): item for item in store.objects(f"{directory}{snapshot_plan.BUNDLE}")}
    snapshot_plan.check_bundles(backup, backup.collections, {key: item.size for key, item in found.items()})
    return [found[key] for key in snapshot_plan.parts(backup, found)]


def target(milvus_store: ObjectStore, backups: ObjectStore, backup_name: str) -> SnapshotPlace:
    """Return where Milvus is told to export to; raises ConfigError where it cannot."""
    return _place(milvus_store, backups, layout.join(backups.location.root_path, backup_name, snapshot_plan.BUNDLE))


def source(ends: Ends, backup_name: str, collection: Collection) -> SnapshotPlace:
    """Return where Milvus is told to restore a collection from; raises ConfigError where it cannot."""
    assert collection.snapshot, "check_options has seen to it"
    path = collection.snapshot.metadata_path
    return _place(ends.milvus_store, ends.backups, layout.join(ends.backups.location.root_path, backup_name, path))


def _place(milvus_store: ObjectStore, backups: ObjectStore, key: str) -> SnapshotPlace:
    def keys() -> Keys:
        found = backups.location.session().get_credentials()
        frozen = found.get_frozen_credentials() if found else None
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "") if frozen else Keys("", "")

    def store(one: ObjectStore) -> Store:
        return Store(one.endpoint, one.region, one.location.bucket, one.location.label)

    return snapshot_plan.place(store(milvus_store), store(backups), key, keys)


# ---- restore ---------------------------------------------------------------------------------------------------------------


def restore_snapshot(server: MilvusServer, name: CollectionName, bundle: SnapshotPlace) -> int:
    """Let Milvus make a collection of a snapshot, and return the id of the job that fills it.

    A collection of this name is dropped before: it is what an earlier try of this restore has left. Milvus reads all manifests before it
    answers; where that takes longer than a request may, the job is found by its collection.

    :param name: one that is only given to collections of this restore
    :raises UnsupportedServer: this Milvus cannot
    """
    fields = {
        "db_name": name.database,
        "target_collection_name": name.collection,
        "snapshot_metadata_uri": bundle.uri,
        "external_spec": bundle.external_spec,
    }
    doing, backoff, asked = f"restore a snapshot as {name}", Backoff(LONGEST_ANSWER, server.patience, first=1), False
    while True:
        if server.collection_id(name) is not None:
            server.drop_collection(name)
        try:
            answer = _ask(server, "RestoreExternalSnapshot", fields, doing, name.database, bundle.secrets, once=True, cancellable=False)
            return int(answer.job_id)
        except ServerError as error:
            if not (isinstance(error, ServerUnreachable) or (asked and "exist" in str(error))):
                raise
            asked = True  # and Milvus may be making the collection; a further request waits for that, and is then refused
            if job_id := _find_restore(server, name, doing):
                return job_id
            if not backoff.again(str(error)):
                raise


def _find_restore(server: MilvusServer, name: CollectionName, doing: str) -> int:
    """Return the id of the job that fills a collection, when there is one; 0 when nothing is being made."""
    until = time.monotonic() + LONGEST_ANSWER
    while True:
        try:
            jobs = _ask(server, "ListRestoreSnapshotJobs", {"db_name": name.database}, "list snapshot jobs", name.database).jobs
        except UnsupportedServer:
            return 0
        found = [int(job.job_id) for job in jobs if job.collection_name == name.collection and job.state != snapshot_plan.FAILED]
        if found or server.collection_id(name) is None or time.monotonic() > until:
            return max(found, default=0)
        server.patience.pause(LONGEST_POLL, f"Milvus was asked to {doing} and has not answered")


def snapshot_state(server: MilvusServer, job_id: int, name: CollectionName) -> JobStatus:
    """Return how far a job of :func:`restore_snapshot` is.

    :param name: the collection that it fills; how many rows are in it is known when it is complete
    """
    doing = f"ask for snapshot job {job_id}"
    try:
        answer = _ask(server, "GetRestoreSnapshotState", {"job_id": job_id}, doing, name.database)
    except ServerError as error:
        return snapshot_plan.lost(job_id, error)
    status = snapshot_plan.of_answer(job_id, answer)
    if status.state is not JobState.COMPLETED:
        return status
    return replace(status, rows=sum(segment.rows for segment in server.segments(name)))


# ---- export ----------------------------------------------------------------------------------------------------------------


def export_snapshot(
    server: MilvusServer, name: CollectionName, collection_id: int, backup_name: str, bundle: SnapshotPlace, reporter: Reporter
) -> tuple[SnapshotBackup, int]:
    """Let Milvus write what is flushed of a collection into a backup; return what it wrote, and of which hybrid timestamp that is.

    :param collection_id: which collection the name stood for when it was described
    :param bundle: where to, as :func:`target` says
    :raises ServerError: Milvus failed it; a further try begins anew
    :raises SourceChanged: the name stands for another collection now
    """
    with _snapshot(server, name, snapshot_plan.snapshot_name(backup_name), reporter) as snapshot:
        described = _describe(server, name, snapshot)
        fields = {**_named(name, snapshot), "target_s3_path": bundle.uri, "external_spec": bundle.external_spec}
        doing = f"export {name} to {bundle.uri}"
        job = _ask(server, "ExportSnapshot", fields, doing, name.database, bundle.secrets, once=True)
        info = _wait(server, name, int(job.job_id), doing, bundle.secrets, reporter)
    path = snapshot_plan.metadata_path(bundle, info.snapshot_metadata_uri)
    if snapshot_plan.collection_of(path) != collection_id:
        raise SourceChanged(f"{name} was dropped and created anew while it was backed up; back up again")
    return SnapshotBackup(path, info.total_files, info.total_bytes), int(described.create_ts)


@contextlib.contextmanager
def _snapshot(server: MilvusServer, name: CollectionName, snapshot: str, reporter: Reporter) -> Iterator[str]:
    """Hold a snapshot of a collection; whatever happens inside, it is dropped afterwards.

    One of the same name is what an earlier try has left. While that try's export still runs it cannot be dropped; Milvus would not begin
    another one meanwhile either.
    """
    pause = FIRST_POLL
    while (problem := _drop(server, name, snapshot)) is not None:
        if not _is_pinned(problem, name, snapshot):
            raise problem
        server.patience.pause(pause, f"Milvus still exports {name} for an earlier try; a retry goes on waiting for it")
        reporter.progress(f"{name}: waiting for the export that an earlier try has begun")
        pause = next_poll(pause, LONGEST_POLL)
    doing, there = f"create a snapshot of {name}", True
    try:
        try:
            _ask(server, "CreateSnapshot", _named(name, snapshot), doing, name.database, done=lambda: _exists(server, name, snapshot))
        except ServerUnreachable:
            raise
        except ServerError:
            there = False  # what may be there is somebody else's
            raise
        yield snapshot
    finally:
        if there:
            _let_go(server, name, snapshot, reporter)


def _let_go(server: MilvusServer, name: CollectionName, snapshot: str, reporter: Reporter) -> None:
    """Drop a snapshot, or say that it is left. Never raises, for it may run while another error does."""
    if server.patience.failure is not None:
        return  # another run goes on, and the snapshot of this name is its own by now
    problem: MilvusBackupError | None = None
    for attempt in range(DROP_TRIES):
        if attempt:
            time.sleep(DROP_PAUSE / 5 if server.patience.over() else DROP_PAUSE)
        if (problem := _drop(server, name, snapshot)) is None:
            return
    reporter.warn(
        f"snapshot {snapshot!r} of {name} is left in Milvus and keeps its files from being collected: {problem}. A further try of this "
        "backup drops it; if there is none, drop it by hand"
    )


def _drop(server: MilvusServer, name: CollectionName, snapshot: str) -> MilvusBackupError | None:
    """Drop a snapshot; one that is not there counts as dropped. Returns what was in the way."""
    try:
        _ask(server, "DropSnapshot", _named(name, snapshot), f"drop snapshot {snapshot!r} of {name}", name.database)
    except MilvusBackupError as error:
        return error
    return None


def _is_pinned(error: MilvusBackupError, name: CollectionName, snapshot: str) -> bool:
    text = str(error).replace(snapshot, "").replace(name.collection, "").lower()
    return re.search(r"\bpin(?:s|ned)?\b", text) is not None


def _exists(server: MilvusServer, name: CollectionName, snapshot: str) -> bool:
    try:
        _describe(server, name, snapshot)
    except ServerError:
        return False
    return True


def _describe(server: MilvusServer, name: CollectionName, snapshot: str) -> Any:
    return _ask(server, "DescribeSnapshot", _named(name, snapshot), f"describe the snapshot of {name}", name.database)


def _wait(server: MilvusServer, name: CollectionName, job_id: int, doing: str, secrets: Sequence[str], reporter: Reporter) -> Any:
    """Return ExportSnapshotInfo of a job that has written everything."""
    pause = FIRST_POLL
    while True:
        info = _ask(server, "GetExportSnapshotState", {"job_id": job_id}, f"ask for export job {job_id} of {name}", name.database).info
        if info.state == snapshot_plan.COMPLETED:
            return info
        if info.state == snapshot_plan.FAILED:
            reason = _hidden(info.reason or "no reason", secrets)
            raise ServerError(f"Milvus at {server.address} could not {doing}: {reason} (export job {job_id})")
        reporter.progress(f"{name}: Milvus has exported {info.copied_files:,} of {info.total_files:,} files")
        server.patience.pause(pause, f"Milvus was exporting {name}; a retry begins this collection anew when that has ended")
        pause = next_poll(pause, LONGEST_POLL)


def _named(name: CollectionName, snapshot: str) -> dict[str, str]:
    return {"db_name": name.database, "collection_name": name.collection, "name": snapshot}


# ---- one request ---------------------------------------------------------------------------------------------------------------


def _request(rpc: str) -> Any:
    """Return the class of a request; raises UnsupportedServer when the installed pymilvus is too old for it."""
    found = getattr(messages(), f"{rpc}Request", None)
    if found is None:
        import pymilvus

        raise UnsupportedServer(
            f"the installed pymilvus {pymilvus.__version__} does not know {rpc}, which snapshots of Milvus need; install pymilvus 3.0.2 "
            "or newer, or use binlog format"
        )
    return found


def _ask(
    server: MilvusServer,
    rpc: str,
    fields: Mapping[str, object],
    doing: str,
    database: str | None = None,
    secrets: Sequence[str] = (),
    *,
    once: bool = False,
    done: Callable[[], bool] | None = None,
    cancellable: bool = True,
) -> Any:
    """Send one request.

    :param secrets: what no error may show, though Milvus does
    :param once: see :meth:`.MilvusRpc._call`
    :param done: see there
    :param cancellable: see there; without, Milvus goes on with a request that takes longer than is waited for
    :raises UnsupportedServer: also for the error code by which 3.0.0 says it
    """
    try:
        return server._call(rpc, _request(rpc)(**fields), doing, database, once=once, done=done, cancellable=cancellable)
    except ServerError as error:
        if error.code == _UNIMPLEMENTED:
            raise UnsupportedServer(f"Milvus at {server.address}, version {server.version}, does not know how to {doing}") from None
        if any(secret in str(error) for secret in secrets):
            raise _without(error, secrets) from None
        raise


def _without(error: E, secrets: Sequence[str]) -> E:
    hidden = type(error)(_hidden(str(error), secrets), error.code)
    hidden.passing, hidden.unclear = error.passing, error.unclear
    return hidden


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return text
