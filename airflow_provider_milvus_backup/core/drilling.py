"""The restore drill: restore a backup into throw-away collections, look at what came of it, throw it away, and write down how it went.

A drill is a restore that never comes to its last step. What it restores is loaded and looked at under the names under which every restore
builds collections (``<target>__restore_<id>``), and then undone: nothing ever has the target's name, no alias is touched, and these names
and their lease say what is a drill's and whether that still lives. Its state is kept in Milvus's bucket, not beside the backup.

- **It cleans up**, whether it succeeds, fails, is killed or runs out of time.
- **It cleans up after others.** A process that dies cannot. The next try of its task takes its lease; the next drill of its task, or by a
  program without a name with its suffix and database, takes those that have run out. Both undo what its state says.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import drill_plan, finishing, layout
from .catalog import Catalog, read_catalog
from .catalog_entry import DRILLED_FILE, CatalogEntry
from .choosing import choose, gone
from .drill_checks import CheckResult, CountCheck
from .drill_cleaning import DrillStates, clean, clean_earlier, close
from .drill_plan import DrillOptions, DrillPlan
from .drill_report import DrillReport
from .ends import Ends
from .errors import (
    BackupDamaged,
    BackupInUse,
    BackupNotFound,
    DrillFailed,
    ImportFailed,
    MilvusBackupError,
    RowsMissing,
    SchemaMismatch,
    ServerError,
    StorageError,
    TargetExists,
)
from .imports import check_poll_interval
from .lease import Owner
from .likeness import index_differences, may_expire, partition_differences, schema_differences
from .names import check_restore_id, restore_id
from .patience import Patience
from .plan import META_ONLY
from .querying import count, search
from .reader import committed, read_backup, read_schemas
from .report import Reporter
from .restore import RestoreRun
from .restore_state import RestoreState, Target
from .schema import has_partition_key
from .settings import Settings
from .submitting import STAGE

#: What says that the backup, and nothing else, kept a restore from succeeding.
_FINDINGS = (BackupDamaged, ImportFailed, RowsMissing, SchemaMismatch)
#: The phases of a restore, by what a report calls them.
_PHASES = {"Choose": "plan", "Plan": "plan", "Create and submit": "create", STAGE: "stage", "Import": "import", "Load": "load"}
_CHECK = "Check"


class Stopwatch(Reporter):
    """Passes everything on to another reporter, and adds up the seconds of phases and their parts."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter.log)
        self.reporter = reporter
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Mark a phase and count its seconds."""
        with self.reporter.phase(title), self.part(title):
            yield

    @contextlib.contextmanager
    def part(self, title: str) -> Iterator[None]:
        """Count the seconds of a part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - began

    def phases(self) -> dict[str, float]:
        """Return the seconds by phase of the report; what is part of another phase counts once."""
        found: dict[str, float] = dict.fromkeys((*_PHASES.values(), _CHECK.lower()), 0.0)
        for title, seconds in self.seconds.items():
            if phase := {**_PHASES, _CHECK: _CHECK.lower()}.get(title):
                found[phase] += seconds
        found["create"] -= found["stage"]
        return found


def drill(
    settings: Settings,
    options: DrillOptions,
    owner: Owner,
    reporter: Reporter,
    patience: Patience,
    drill_id: str | None = None,
    poll_interval: float = 5.0,
) -> dict[str, Any]:
    """Drill, and return what :meth:`.DrillReport.to_dict` says.

    :param owner: who drills, as leases and the result show it
    :param drill_id: sixteen hexadecimal digits, the same in every try of a task instance, and in their first half in every run of the task,
        see :func:`.names.restore_id`; by default the first half stands for the suffix and the database
    :param patience: what ends it early; what it has restored is dropped then too
    :param poll_interval: longest pause between two looks at the import jobs, in seconds
    :raises DrillFailed: a check failed, or the recovery took longer than ``max_seconds``
    :raises BackupDamaged, ImportFailed, RowsMissing, SchemaMismatch: the backup does not restore
    :raises BackupNotFound: there is none to choose
    :raises ConfigError: options, collections or checks that cannot be used; nothing was restored
    :raises TargetExists: somebody has a collection of the target's name
    """
    options.check()
    check_poll_interval(poll_interval)
    identity = check_restore_id(drill_id or restore_id(("drill", options.suffix, options.database or ""), uuid.uuid4().hex))
    with reporter.phase("Clean up after earlier drills"):
        clean_earlier(settings, reporter, patience, owner, identity)
    watch = Stopwatch(reporter)
    ends = Ends.open(settings, watch, patience)
    run = RestoreRun(ends, DrillStates(ends.backups, ends.milvus_store), owner, resumable=False)
    try:
        return _Drill(run, watch, options, identity, poll_interval).run_it()
    finally:
        close(run)


@dataclass(slots=True)
class _Drill:
    """One drill on its way."""

    run: RestoreRun
    watch: Stopwatch
    options: DrillOptions
    identity: str
    poll_interval: float

    @property
    def ends(self) -> Ends:
        return self.run.ends

    def run_it(self) -> dict[str, Any]:
        began = time.monotonic()
        with self.watch.phase("Choose"):
            catalog, entry = self._choose()
        report = DrillReport(entry.name, entry.backup_id, self.options.max_seconds, task=self.run.owner.identity)
        problem: MilvusBackupError | None = None
        try:
            with clean(self.run):
                self._recover(entry, report)
        except BackupNotFound as error:
            raise gone(error, entry.name) if self.options.chooses else error from None
        except _FINDINGS as error:
            problem, report.error = error, f"{type(error).__name__}: {error}"
        report.seconds = self.watch.phases()
        self.watch.line(report.line())
        for result in report.failed:
            self.watch.warn(f"failed: {result}")
        self._write_down(report, catalog.now + timedelta(seconds=time.monotonic() - began))
        if problem:
            raise problem
        if not report.ok:
            raise DrillFailed(report.problem())
        return report.to_dict()

    def _choose(self) -> tuple[Catalog, CatalogEntry]:
        options, store = self.options, self.ends.backups
        if options.chooses:
            catalog = read_catalog(store, options.name_pattern)
        else:
            catalog = read_catalog(store, options.backup_name, unfinished=True)
            catalog = catalog if catalog.entries else read_catalog(store)  # for the error, which says what there is
        # To restore one without data would prove nothing; whoever names it gets it all the same.
        entries = [entry for entry in catalog.entries if not (options.chooses and entry.strategy == META_ONLY)]
        try:
            entry = choose(entries, options.backup_name, catalog.now, options.rng())
        except BackupNotFound as error:
            among = f" (among those that name_pattern {options.name_pattern!r} fits)" if options.name_pattern else ""
            among += f" (without those that hold no data, made with {META_ONLY})" if len(entries) < len(catalog.entries) else ""
            raise BackupNotFound(f"{error}, in {store.location}{among}") from None
        moment = f" of {entry.time.isoformat(timespec='seconds')}" if entry.time else ""
        self.watch.line(f"backup {entry.name!r}{moment} is drilled")
        return catalog, entry

    def _recover(self, entry: CatalogEntry, report: DrillReport) -> None:
        """Restore, load and check."""
        with self.watch.part("Choose"):
            backup = read_backup(self.ends.backups, entry.name)
            plan = drill_plan.plan(self.options, backup, self.ends.settings.milvus.database, self.options.rng())
            schemas = read_schemas(self.ends.backups, backup, self.watch)
        try:
            state = self.run.start(entry.name, self.identity, plan.restore)
        except TargetExists as error:
            taken = str(error).partition(";")[0]
            raise TargetExists(f"{taken}; a drill leaves alone what it has not made: choose another suffix or database") from None
        report.server_version = self.ends.server.version
        if state.backup_id != backup.backup_id:
            raise BackupInUse(f"backup {entry.name!r} was replaced while its drill was being planned; try again")
        self.run.wait(state, self.poll_interval)
        with self.watch.phase("Load"):
            for line in plan.unloaded:
                self.watch.line(line)
            for target in state.targets:
                target.load = plan.load[target.source]
            finishing.check_rows(self.ends, state.targets)
            finishing.load(self.ends, state.targets)
        report.rows = {str(target.source): target.rows for target in state.targets}
        report.whole = len(report.rows) == len(backup.collections)
        with self.watch.phase(_CHECK):
            report.results = list(self._look(plan, state, schemas))

    def _look(self, plan: DrillPlan, state: RestoreState, schemas: dict[int, bytes]) -> Iterator[CheckResult]:
        server, targets = self.ends.server, {target.source: target for target in state.targets}
        for name, target in targets.items():
            self.ends.patience.check("what was restored was being checked; it is dropped again")
            collection = plan.collections[name]
            raw, shards = schemas.get(collection.collection_id), self.options.max_shards
            different = schema_differences(collection, raw, server.describe(target.building), shards)
            if not has_partition_key(collection.schema):  # otherwise Milvus gives the names
                different += partition_differences(collection, [one for _, one in server.partitions(target.building)])
            yield _same(target, "schema", different)
            yield _same(target, "indexes", index_differences(collection.indexes, server.indexes(target.building)))
            if target.load is None:
                yield self._counted(target, may_expire=may_expire(collection))
        for check in plan.checks:
            self.ends.patience.check("what was restored was being checked; it is dropped again")
            building = targets[check.collection].building
            try:
                if isinstance(check, CountCheck):
                    yield check.judge(count(server, building, check.expression))
                else:
                    yield check.judge(search(server, building, check))
            except ServerError as error:
                if error.passing or type(error) is not ServerError:
                    raise
                yield CheckResult(str(check.collection), check.title, False, check.expected, f"an error: {error}")

    def _counted(self, target: Target, *, may_expire: bool) -> CheckResult:
        """Compare the rows that a query finds with those that were imported; those that were deleted are not found.

        Which servers take deleted rows off what they say they have imported, differs.
        """
        found, low = count(self.ends.server, target.building), target.rows
        if found < low:
            inserted = sum(job.rows for job in target.jobs if not job.l0)
            low = 0 if may_expire else min(low, max(0, inserted - sum(finishing.count_deletes(self.ends, job) for job in target.jobs)))
        expected = f"{target.rows:,}" if low == target.rows else f"{low:,} to {target.rows:,}"
        return CheckResult(str(target.source), "rows", low <= found <= target.rows, expected, f"{found:,}")

    def _write_down(self, report: DrillReport, moment: datetime) -> None:
        """Write ``drill.json`` into the backup, if that is still there; where it cannot be written the drill counts all the same."""
        store = self.ends.backups
        try:
            if committed(store, report.backup_name)[0] == report.backup_id:
                store.write(layout.provider_key(store.location.root_path, report.backup_name, DRILLED_FILE), report.to_json(moment))
        except (StorageError, BackupDamaged) as error:
            self.watch.warn(f"the catalog does not show this drill, for its result cannot be written into the backup: {error}")


def _same(target: Target, what: str, different: list[str]) -> CheckResult:
    told = "; ".join(different[:5]) + (f"; and {len(different) - 5:,} more" if len(different) > 5 else "")
    return CheckResult(str(target.source), what, not different, "that of the backup", told or "the same")
