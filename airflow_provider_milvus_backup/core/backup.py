"""Backup: plan → copy → commit.

Each phase hands the next a :class:`~.plan.BackupPlan`, so they may run as three tasks on different workers. Until commit has written
``backup_meta.json`` the backup does not exist for anybody; a later attempt under the same name goes on where this one stopped.

====================================  ================================================================================================
``provider/lease.json``               who writes here right now; every phase holds it
``provider/attempt.json``             whose attempt is the newest
``provider/plan.json``                what that attempt copies. Whatever lies under a key of the plan was copied from a source that had
                                      the size and the ETag of the plan: objects of which this is not certain are deleted before
``provider/schemas.json``             the schemas as Milvus described them, with what the official format cannot carry
``provider/summary.json``             what the task returned
``provider/catalog.json``             what the catalog shows and the commit mark does not say; ``manifest.json`` is in :mod:`.manifest`
====================================  ================================================================================================
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import attempt as attempts
from . import catalog, committing, exporting, flushing, holds, layout, meta, raw_schema, rbac_transfer, reuse
from .attempt import ATTEMPT_FILE, Action, Attempt
from .capabilities import Capability
from .copier import Progress, copy_objects
from .databases import describe_databases
from .errors import BackupDamaged, BackupError, BackupExists, ConfigError, NotInStorage, SourceChanged
from .gc_pause import GC_AUTO, GC_OFF, GcPause, check_gc_pause, management_url
from .jsonreader import Node
from .lease import Lease, Owner
from .names import CollectionName, check_backup_name, parse_selection
from .patience import Patience
from .plan import FLUSH, FLUSH_ALL, META_ONLY, PLAN_FILE, STRATEGIES, BackupPlan
from .raw_schema import SCHEMAS_FILE
from .reader import MAX_META_BYTES, committed, read_backup
from .report import Reporter, counted, duration
from .report import size as written
from .server import MilvusServer
from .settings import Settings
from .store import ObjectStore
from .summary import BackupSummary, CollectionSummary
from .survey import Survey

#: How often a collection whose segments were compacted away during the copy is planned again.
REPLANS = 3
SUMMARY_FILE = "summary.json"


@dataclass(slots=True)
class BackupRun:
    """The two ends of one backup, who makes it, and how to report and stop it."""

    settings: Settings
    server: MilvusServer
    source: ObjectStore
    destination: ObjectStore
    reporter: Reporter
    patience: Patience
    owner: Owner
    gc_pause: str = GC_AUTO
    _lease: Lease | None = field(default=None, init=False)
    _gc_pause: GcPause | None = field(default=None, init=False)
    _surveyor: Survey | None = field(default=None, init=False)

    @classmethod
    def open(
        cls,
        settings: Settings,
        reporter: Reporter | None = None,
        patience: Patience | None = None,
        owner: Owner | None = None,
        gc_pause: str = GC_AUTO,
    ) -> BackupRun:
        """Return a run for these settings; nothing is connected yet.

        :param gc_pause: whether Milvus's garbage collection is paused meanwhile: ``auto`` (try, and warn), ``require`` or ``off``
        """
        patience = patience or Patience()
        return cls(
            settings,
            MilvusServer(settings.milvus, patience),
            ObjectStore(settings.milvus_storage, patience),
            ObjectStore(settings.backup_storage, patience),
            reporter or Reporter(),
            patience,
            owner or Owner(),
            gc_pause,
        )

    def backup(
        self,
        name: str,
        collections: str | Sequence[str] | None = None,
        strategy: str = FLUSH,
        if_exists: str = attempts.FAIL,
        *,
        include_rbac: bool = False,
        format: str = exporting.BINLOG,  # noqa: A002 (as the meta calls it)
    ) -> BackupSummary:
        """Back the selected collections up under ``name``; everything when none are named.

        :param if_exists: what to do about what is there under this name: see :func:`.attempt.decide`
        :param include_rbac: users, roles, grants and privilege groups of the cluster, too
        :param format: ``binlog``, or ``snapshot`` where Milvus can export snapshots (3.0.1 and later)
        :raises ConfigError: a name, a selection or a setting is wrong
        :raises BackupExists: the name is taken
        :raises BackupInUse: somebody else writes this backup right now
        :raises SourceChanged: segments kept vanishing while they were copied
        """
        started = time.monotonic()
        self._check_arguments(name, collections, strategy, if_exists, format)
        if self._decide(name, if_exists) is Action.RETURN:
            summary = self._summary_of_finished(name)
        else:
            with self.writing(name):
                with self.reporter.phase("Plan"):
                    plan = self.plan(name, collections, strategy, if_exists, include_rbac=include_rbac, format=format)
                with self.reporter.phase("Copy"):
                    plan = self._copy_until_nothing_vanishes(plan)
                with self.reporter.phase("Commit"):
                    summary = self.commit(plan, seconds=time.monotonic() - started)
        for line in (*summary.table(), f"consistent: {summary.consistency}"):
            self.reporter.line(line)
        return summary

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Hold the lease of a backup that is written; every phase runs inside of this.

        :raises BackupInUse: somebody else holds it
        """
        key = layout.lease_key(self.destination.location.root_path, name)
        self._lease = Lease(self.destination, key, self.owner, f"write backup {name!r}", self.reporter)
        self._lease.take()
        try:
            with self._lease.kept(self.patience), self._pausing_gc():
                yield
        finally:
            self._lease.give_up()
            self._lease = None

    @contextlib.contextmanager
    def _pausing_gc(self) -> Iterator[None]:
        if self.gc_pause == GC_OFF:
            yield
            return
        per_collection = self.server.can(Capability.GC_TICKETS)
        self._gc_pause = GcPause.of(self.settings.milvus, per_collection, self.gc_pause, self.reporter, self.patience)
        try:
            with self._gc_pause:
                yield
        finally:
            self._gc_pause = None

    # ---- what is there -----------------------------------------------------------------------------------------------------

    def _check_arguments(self, name: str, collections: str | Sequence[str] | None, strategy: str, if_exists: str, format_: str) -> None:
        check_backup_name(name)
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
        attempts.check_if_exists(if_exists)
        if check_gc_pause(self.gc_pause) != GC_OFF:
            management_url(self.settings.milvus)
        self.server.check_release()
        if strategy == FLUSH_ALL:
            flushing.check_flush_all(self.server)
        self._survey().check_places(self.destination)
        exporting.check_format(self.server, self.source, self.destination, name, format_, strategy)
        parse_selection(collections)

    def _decide(self, name: str, if_exists: str) -> Action:
        root = self.destination.location.root_path
        backup_id, _ = committed(self.destination, name)
        attempt, leftover = committing.find_attempt(self.destination, name), ""
        if backup_id is None and attempt is None:
            below = (item.key for item in self.destination.objects(layout.backup_dir(root, name)))
            leftover = next((key for key in below if key != layout.lease_key(root, name)), "")
        return attempts.decide(name, str(self.destination.location), self.owner, if_exists, backup_id, attempt, leftover)

    def _summary_of_finished(self, name: str) -> BackupSummary:
        backup, attempt = read_backup(self.destination, name), committing.find_attempt(self.destination, name)
        if attempt and attempt.backup_id == backup.backup_id and attempt.owner.identity == self.owner.identity:
            self.reporter.line(f"backup {name!r} was committed by {attempt.owner}; nothing is left to do")
            with self.writing(name):  # also takes away the lease that a try which died after the commit has left
                if attempt.replaces:
                    committing.remove_replaced(self.destination, backup, self._lease, self.reporter)
        else:
            self.reporter.line(f"backup {name!r} is there already; it stays as it is")
        try:
            stored = Node.parse(self.destination.read(self._provider_key(name, SUMMARY_FILE), MAX_META_BYTES), SUMMARY_FILE)
            strategy, seconds = stored.string("strategy"), stored.number("seconds")
        except (NotInStorage, BackupDamaged):  # a backup of the official tool; the summary is no part of any backup
            strategy, seconds = "unknown", 0.0
        return self._summary(backup, strategy, seconds)

    def _summary(self, backup: meta.Backup, strategy: str, seconds: float) -> BackupSummary:
        return BackupSummary(
            name=backup.name,
            uri=f"s3://{self.destination.location.bucket}/{layout.join(self.destination.location.root_path, backup.name)}",
            server_version=backup.server_version,
            strategy=strategy,
            collections=[CollectionSummary.of(collection) for collection in backup.collections],
            seconds=round(seconds, 3),  # as it is written down, so that a retry returns the same
        )

    def _provider_key(self, name: str, file: str) -> str:
        return layout.provider_key(self.destination.location.root_path, name, file)

    # ---- plan --------------------------------------------------------------------------------------------------------------

    def plan(
        self,
        name: str,
        collections: str | Sequence[str] | None = None,
        strategy: str = FLUSH,
        if_exists: str = attempts.FAIL,
        *,
        include_rbac: bool = False,
        format: str = exporting.BINLOG,  # noqa: A002
    ) -> BackupPlan:
        """Flush, list, and write the plan beside where the backup will be; copies nothing yet."""
        self._check_arguments(name, collections, strategy, if_exists, format)
        chosen = self._survey().choose(parse_selection(collections))
        action = self._decide(name, if_exists)
        if action is Action.RETURN:
            raise BackupExists(f"backup {name!r} is finished in {self.destination.location}; there is nothing to plan")
        finished, earlier = committed(self.destination, name)[0], committing.find_attempt(self.destination, name)
        holds.check_replaceable(self.destination, name, finished)
        resumed = action is Action.RESUME and earlier
        attempt = Attempt(earlier.backup_id if earlier and resumed else str(uuid.uuid4()), self.owner, finished or "")
        recorded = committing.recorded(self.destination, name, self.reporter)
        if resumed:
            self.reporter.line(f"going on with the unfinished attempt of {resumed.owner}")

        users = rbac_transfer.backup_rbac(self.server) if include_rbac else None
        described = self._survey().describe(chosen)
        databases = describe_databases(self.server, {collection.database for collection in described})
        snapshot = format == meta.SNAPSHOT
        done = exporting.reused(self.destination, name, attempt.backup_id, described) if snapshot else {}
        self._hold_garbage({} if snapshot else described)
        due = [collection for collection in described if collection not in done]
        flushed = flushing.flush_each(self.server, due, self.reporter, self.patience) if strategy == FLUSH else {}
        all_flushed = flushing.flush_everything(self.server, self.reporter, self.patience) if strategy == FLUSH_ALL else None
        listing = META_ONLY if snapshot else strategy
        planned = [done.get(c) or self._survey().collection(c, found, flushed.get(c), listing) for c, found in described.items()]
        backup = meta.Backup(
            backup_id=attempt.backup_id,
            name=name,
            server_version=self.server.version,
            collections=planned,
            databases=databases,
            rbac=users,
            flush_all=all_flushed,
            format=meta.SNAPSHOT if snapshot else "",
        )
        plan = BackupPlan(backup, strategy, self.source.location.root_path, self.destination.location.root_path, finished or "")
        self.destination.write(self._provider_key(name, ATTEMPT_FILE), attempt.to_json())
        self._write_schemas(backup, described)
        plan = self._settle(plan, recorded)
        ends = f"from {self.source.location.uri} to {self.destination.location.uri}"
        self.reporter.line(f"to copy: {counted(sum(1 for _ in plan.copies()), 'object')}, {written(backup.size)}, {ends}")
        return plan

    def replan(self, plan: BackupPlan) -> BackupPlan:
        """Plan those collections again of which an object no longer exists; the others stay as they are."""
        recorded = {copy.destination: copy.etag for copy in plan.copies()}
        described = {collection.name: self.server.describe(collection.name) for collection in plan.backup.collections}
        self._hold_garbage(described)
        collections = []
        for collection in plan.backup.collections:
            if described[collection.name].collectionID != collection.collection_id:
                raise BackupError(f"{collection.name} was dropped and created again while it was backed up; start a new backup")
            if self._survey().holds(collection):
                collections.append(collection)
                continue
            flushed = None
            if plan.strategy in (FLUSH, FLUSH_ALL):
                flushed = flushing.flush_each(self.server, [collection.name], self.reporter, self.patience)[collection.name]
            if plan.strategy == FLUSH_ALL:
                self.reporter.warn(f"{collection.name} is flushed again, so it is some moments newer than the other collections")
            collections.append(self._survey().collection(collection.name, described[collection.name], flushed, plan.strategy))
            self.reporter.line(f"{collection.name}: planned again")
        self._write_schemas(plan.backup, described)
        return self._settle(replace(plan, backup=replace(plan.backup, collections=collections)), recorded)

    def _hold_garbage(self, described: Mapping[CollectionName, Any]) -> None:
        if self._gc_pause:
            self._gc_pause.hold([found.collectionID for found in described.values()])

    def _write_schemas(self, backup: meta.Backup, described: Mapping[CollectionName, Any]) -> None:
        schemas = {found.collectionID: found.schema.SerializeToString() for found in described.values()}
        self.destination.write(self._provider_key(backup.name, SCHEMAS_FILE), raw_schema.to_file(backup.backup_id, schemas))

    def _survey(self) -> Survey:
        if self._surveyor is None:
            self._surveyor = Survey(self.settings, self.server, self.source, self.reporter, self.patience)
        return self._surveyor

    def _settle(self, plan: BackupPlan, recorded: dict[str, str]) -> BackupPlan:
        """Make what is at the destination and the plan fit each other, and write the plan."""
        name = plan.backup.name
        there = {item.key: item for item in self.destination.objects(layout.binlogs_dir(plan.backup_root, name))}
        if there and plan.replaces:
            old = read_backup(self.destination, name)
            plan = reuse.apart(plan, there, recorded, committing.object_keys(self.destination, old))
        elif there:
            kept = reuse.sort_out(plan.copies(), there, recorded)
            again = ", ".join(f"{count:,} {why}" for why, count in kept.again.items())
            gone = len(kept.remove) - sum(kept.again.values())
            self.reporter.line(
                f"{counted(kept.objects, 'object')} of the earlier attempt {'is' if kept.objects == 1 else 'are'} used again"
                + (f"; copied again: {again}" if again else "")
                + (f"; removed because no longer part of the backup: {gone:,}" if gone else "")
            )
            self.destination.delete(kept.remove)
        there.clear()  # all of this is large where the plan is
        recorded.clear()
        self.destination.write(self._provider_key(name, PLAN_FILE), plan.to_json())
        return plan

    # ---- copy --------------------------------------------------------------------------------------------------------------

    def _copy_until_nothing_vanishes(self, plan: BackupPlan) -> BackupPlan:
        for _ in range(REPLANS):
            try:
                self.copy(plan)
            except SourceChanged as error:
                self.reporter.warn(f"{error}; planning again")
                plan = self.replan(plan)
            else:
                return plan
        self.copy(plan)
        return plan

    def copy(self, plan: BackupPlan) -> Progress:
        """Copy what is not there yet. What is there under a key of the plan was proven right when the plan was written."""
        if plan.backup.format == meta.SNAPSHOT:
            exporting.export(self.server, self.source, self.destination, plan, self.reporter)
            return Progress(0, 0)
        if self._gc_pause:
            self._gc_pause.hold([collection.collection_id for collection in plan.backup.collections])
        there = {item.key: item.size for item in self.destination.objects(layout.binlogs_dir(plan.backup_root, plan.backup.name))}
        done, objects, size = set(), 0, 0
        for copy in plan.copies():
            if there.get(copy.destination) == copy.size:
                done.add(copy.destination)
            else:
                objects += 1
                size += copy.size
        if done:
            self.reporter.line(f"{len(done):,} of {objects + len(done):,} objects are already there")
        progress = Progress(objects, size)
        copy_objects(
            self.source,
            self.destination,
            (copy for copy in plan.copies() if copy.destination not in done),  # not a list: there may be millions
            progress,
            report=self.reporter.copying,
            patience=self.patience,
            **self.settings.copying,
        )
        repeated = f", {progress.retries:,} requests repeated" if progress.retries else ""
        rate = written(progress.bytes / max(progress.seconds, 1e-9))
        self.reporter.line(
            f"copied {progress.objects:,} objects, {written(progress.bytes)}, in {duration(progress.seconds)} "
            f"({rate}/s, {progress.objects / max(progress.seconds, 1e-9):,.0f} objects/s, {progress.mode}{repeated})"
        )
        return progress

    # ---- commit ------------------------------------------------------------------------------------------------------------

    def commit(self, plan: BackupPlan, seconds: float = 0.0) -> BackupSummary:
        """Compare every key and size with the plan, then write the meta files, the commit mark last.

        :param seconds: how long the backup took so far, for the summary
        :raises BackupError: an object is missing or has another size
        :raises TakenOver: another run has begun to write this backup
        """
        started, name = time.monotonic(), plan.backup.name
        plan = exporting.latest(self.destination, plan)
        copied = committing.check_copied(self.destination, plan)
        self.patience.check("the backup was about to be committed; a retry goes on from here")
        summary = self._summary(plan.backup, plan.strategy, seconds + time.monotonic() - started)
        self.destination.write(self._provider_key(name, SUMMARY_FILE), json.dumps(summary.to_dict()).encode())
        catalog.record(self.destination, plan.backup, summary)
        if self._gc_pause:
            self._gc_pause.check()
        committing.write_meta(self.destination, plan, self._lease, copied)
        self.reporter.line(f"committed {summary.uri}")
        if plan.backup.format == meta.SNAPSHOT:
            exporting.remove_strays(self.destination, plan.backup, self.reporter)
        if plan.replaces:
            committing.remove_replaced(self.destination, plan.backup, self._lease, self.reporter)
        return summary
