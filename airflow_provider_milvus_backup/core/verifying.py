"""Verifying a backup: everything is there, it is what was backed up, and it is what Milvus writes.

Each level does what the one before does, too:

=============  ====================================================================================================================
``objects``    one listing is compared with the manifest (or the meta): presence, size, ETag; the meta files are read and compared
``checksums``  the objects are read as well, and their content compared with what is known of it
``binlogs``    and they are opened: what Milvus writes at their head, and the rows of every field against those of the segment
=============  ====================================================================================================================

A verification holds a lease beside the backup, as a restore does, so that nobody deletes it meanwhile. Where it may not write, it says so
and returns its result all the same.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from . import layout, meta, snapshot_plan
from .catalog_entry import MARK, MAX_BYTES, VERIFIED, read_verified
from .errors import BackupDamaged, BackupInUse, BackupNotFound, ConfigError, NotInStorage, StorageDenied, StorageError
from .lease import Lease, Owner
from .manifest import Recorded
from .meta_check import Account, read_account
from .names import check_backup_name, short_id
from .pacing import Pace
from .pairing import Contents, pair
from .reader import committed, read_backup
from .reading import Reading
from .report import Reporter, counted, duration
from .report import size as written
from .sampling import Sample
from .segment_check import Examination
from .store import ObjectStore, StoredObject
from .verification import (
    BINLOGS,
    CHANGED,
    CHECKSUMS,
    EXTRA,
    LEVELS,
    MANIFEST,
    META,
    MISSING,
    OBJECTS,
    SIZE,
    Finding,
    Verification,
    overlooks,
    to_json,
)


def verify(
    store: ObjectStore,
    name: str,
    owner: Owner,
    reporter: Reporter,
    *,
    level: str = OBJECTS,
    sample: str | None = None,
    max_bytes_per_second: float | str | None = None,
    seed: str | None = None,
) -> Verification:
    """Verify a complete backup of either tool, and write the result beside it; damage is part of the result.

    :param owner: who verifies, as the lease shows it
    :param level: ``objects``, ``checksums`` or ``binlogs``; each does what the one before does, too
    :param sample: the part that is read: ``3/30``, the third of thirty parts that together are everything, or ``5%``, another part every
        time
    :param max_bytes_per_second: how fast to read at most, all streams together; ``50MiB`` is as good as a number
    :param seed: makes a percentage the same part as the last time
    :raises ConfigError: an argument means nothing
    :raises BackupNotFound: there is no complete backup of this name
    :raises StorageError: the store is away or does not let it be read; nothing was found out, and nothing is written
    """
    check_arguments(level, sample, max_bytes_per_second)
    part = Sample.parse(sample, lambda: seed or uuid.uuid4().hex) if sample is not None else None
    pace = Pace(max_bytes_per_second)
    check_backup_name(name)
    if not store.exists(layout.join(store.location.root_path, name, MARK)):  # a lease would be all there is
        read_backup(store, name)  # raises, and names those that there are
    started = time.monotonic()
    with _reading(store, name, owner, reporter) as writable:
        run = _Run(store, name, level, part, pace, reporter, read_account(store, name))
        found = run.all()
        found.seconds = round(time.monotonic() - started, 3)
        _keep(store, found, reporter, writable=writable)
    for line in _told(found):
        reporter.line(line)
    return found


def check_arguments(level: str, sample: str | None, max_bytes_per_second: float | str | None) -> None:
    """Raise ConfigError for arguments of :func:`verify` that mean nothing, or nothing together."""
    if level not in LEVELS:
        raise ConfigError(f"level {level!r} is not one of {', '.join(LEVELS)}")
    Pace(max_bytes_per_second)
    if sample is not None:
        Sample.parse(sample, str)
    for argument, value in (("sample", sample), ("max_bytes_per_second", max_bytes_per_second)):
        if level == OBJECTS and value is not None:
            raise ConfigError(f"{argument} {value!r} means nothing at level {OBJECTS!r}, which reads no data; use level {CHECKSUMS!r}")


@contextmanager
def _reading(store: ObjectStore, name: str, owner: Owner, reporter: Reporter) -> Iterator[bool]:
    """Hold the lease of one who reads the backup; yields whether there is one."""
    # The same in every try of a task instance, so that one which was killed leaves nothing that stays.
    mine = short_id(f"verify {owner.identity or uuid.uuid4().hex}")
    key = layout.lease_key(store.location.root_path, name, mine)
    lease: Lease | None = Lease(store, key, owner, f"verify backup {name!r}", reporter)
    assert lease
    try:
        lease.take()
    except StorageDenied as error:
        reporter.warn(f"backup {name!r} is verified without a lease, so it may be deleted meanwhile, and the result is not kept: {error}")
        lease = None
    try:
        with lease.kept(store.patience) if lease else nullcontext():
            yield lease is not None
    finally:
        if lease:
            lease.give_up()
            store.patience.failure = None  # the lease of this backup says nothing about the next one


def _keep(store: ObjectStore, found: Verification, reporter: Reporter, *, writable: bool) -> None:
    """Write the result beside the backup that was verified."""
    root, name = store.location.root_path, found.name
    try:
        found.time = store.times(layout.join(root, name, MARK))[1].isoformat(timespec="seconds")
    except NotInStorage:
        raise BackupNotFound(f"backup {name!r} was deleted while it was verified; of it nothing is known any more") from None
    if found.backup_id and committed(store, name)[0] != found.backup_id:
        raise BackupInUse(f"backup {name!r} was replaced while it was verified; verify it again")
    if not (writable and found.backup_id):
        return
    earlier = _kept(store, found) if found.ok else None
    if earlier and overlooks(found, earlier):
        of = f"the part {earlier['sample']}" if earlier["sample"] else "all"
        reporter.warn(
            f"damage was found in backup {name!r} on {earlier['time']}, at level {earlier['level']!r} in {of} of it. This verification "
            "has not looked as closely, so that result stays; verify the same again, or all of it, once the damage is mended"
        )
        return
    try:
        store.write(layout.join(root, name, VERIFIED), to_json(found))
    except StorageDenied as error:
        reporter.warn(f"the result is not kept beside the backup: {error}")


def _kept(store: ObjectStore, found: Verification) -> dict[str, Any] | None:
    """Return the result that is there, None when there is none of this backup."""
    try:
        content = store.read(layout.join(store.location.root_path, found.name, VERIFIED), MAX_BYTES)
    except StorageError:  # whoever reads the catalog does not see it either
        return None
    return read_verified(content, found.backup_id)


@dataclass(slots=True)
class _Run:
    store: ObjectStore
    name: str
    level: str
    sample: Sample | None
    pace: Pace
    reporter: Reporter
    account: Account
    contents: Contents = field(init=False)
    _findings: list[Finding] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        nothing = meta.Backup(self.account.backup_id, self.name, "", [])
        self.contents = Contents(self.account.backup or nothing)

    def all(self) -> Verification:
        """Verify, and return the result without its time."""
        account, directory = self.account, layout.backup_dir(self.store.location.root_path, self.name)
        found = Verification(
            self.name,
            f"s3://{self.store.location.bucket}/{directory.rstrip('/')}",
            account.backup_id,
            self.level,
            self.sample.text if self.sample else None,
            MANIFEST if account.manifest else META,
        )
        for note in account.notes:
            self.reporter.warn(note)
        self._findings += account.findings
        examination = Examination(self.contents, self.sample, read=self.level != OBJECTS, opened=self.level == BINLOGS)
        with self.reporter.phase("Compare"):
            self._compare(found, directory, examination)
        if self.level != OBJECTS and account.backup:
            self._read(found, examination)
        found.findings = self._findings
        found.damage, found.intact = self.contents.judge(found.findings)
        return found

    # ---- objects -----------------------------------------------------------------------------------------------------------

    def _compare(self, found: Verification, directory: str, examination: Examination) -> None:
        account = self.account
        bundle: dict[str, int] = {}
        strays: list[str] = []
        recorded: Iterable[Recorded] = account.manifest.objects() if account.manifest else self.contents.objects()
        for one, item in pair(recorded, self._listed(found, directory)):
            if item and item.key.startswith("bundle/"):
                bundle[item.key] = item.size
            if one is None and item is not None:
                if account.backup and self.contents.would_be_imported(item.key):
                    self._find(EXTRA, item.key, f"is not part of the backup ({item.size:,} bytes), and a restore would import it, too")
                elif account.manifest or not item.key.startswith("bundle/"):
                    strays.append(item.key)
                elif account.backup and self._in_bundle(item.key):
                    examination.expect(Recorded(*item), item)
            elif one is not None and item is None:
                self._find(MISSING, one.key, f"is missing ({one.size:,} bytes)")
                examination.lacks(one.key)
            elif one is not None and item is not None:
                self._compare_one(one, item, examination)
        if strays:
            told = f"{counted(len(strays), 'object')} beside the segments, such as {strays[0]!r}"
            self.reporter.warn(f"{told}: no part of the backup, and a restore leaves them alone")
        if not account.manifest:
            self._check_bundles(bundle)
        self.reporter.line(f"compared {counted(found.objects, 'object')}, {written(found.bytes)}, with the {found.compared_with}")

    def _compare_one(self, one: Recorded, item: StoredObject, examination: Examination) -> None:
        if one.size != item.size:
            self._find(SIZE, one.key, f"has {item.size:,} bytes instead of {one.size:,}")
            examination.lacks(one.key)
            return
        if one.etag and one.etag != item.etag:
            self._find(CHANGED, one.key, f"was written again since the backup: its ETag is {item.etag or 'empty'} instead of {one.etag}")
        examination.expect(one, item)

    def _listed(self, found: Verification, directory: str) -> Iterator[StoredObject]:
        for item in self.store.objects(directory):
            key = item.key[len(directory) :]
            if key.startswith(("binlogs/", "bundle/")):
                found.objects += 1
                found.bytes += item.size
                self.reporter.progress(f"compared {counted(found.objects, 'object')}")
                self.store.patience.check("a backup was verified; nothing of the result is kept, verify again")
                yield item._replace(key=key)

    def _in_bundle(self, key: str) -> bool:
        return any(snapshot_plan.parts(self.contents.backup, [key]))

    def _check_bundles(self, there: dict[str, int]) -> None:
        for collection in self.contents.backup.collections:
            if collection.snapshot:
                try:
                    snapshot_plan.check_bundles(self.contents.backup, [collection], there)
                except BackupDamaged as error:
                    self._findings.append(Finding(MISSING, collection.snapshot.metadata_path, str(error), collection.collection_id))

    def _find(self, kind: str, key: str, detail: str) -> None:
        self._findings.append(self.contents.finding(kind, key, detail))

    # ---- checksums and binlogs ---------------------------------------------------------------------------------------------

    def _read(self, found: Verification, examination: Examination) -> None:
        examination.choose()
        total = examination.total
        if self.level == CHECKSUMS and total[0] and not (self.account.md5 or examination.has_checksums):
            raise ConfigError(
                f"level {CHECKSUMS!r} proves nothing about backup {self.name!r}: the ETags of {self.store.location} are not made of the "
                f"content, and no checksums are known of it. Use {BINLOGS!r}, which opens the files, or {OBJECTS!r}"
            )
        if self.level == BINLOGS and self.contents.backup.format == meta.SNAPSHOT:
            self.reporter.warn("this backup is in snapshot format: its files are read and compared, but not opened")
        reading = Reading(self.store, self.name, self.pace, self.reporter, whole=self.level == BINLOGS, md5=self.account.md5)
        with self.reporter.phase("Read"):
            reading.run(examination.targets(), examination.see, total)
        examination.finish()
        self._findings = [one for one in self._findings if one.kind != CHANGED or one.key not in examination.same] + examination.findings
        found.read_objects, found.read_bytes = total
        found.unproven, found.segments = examination.unproven, examination.segments
        if found.unproven:
            self.reporter.warn(f"of {counted(found.unproven, 'object')} nothing is known that their content could be compared with")


def _told(found: Verification) -> Iterator[str]:
    part = f" (sample {found.sample})" if found.sample else ""
    read = f", read {counted(found.read_objects, 'object')}, {written(found.read_bytes)}{part}" if found.level != OBJECTS else ""
    opened = f", {counted(found.segments, 'segment')} opened" if found.level == BINLOGS else ""
    verdict = "nothing is wrong" if found.ok else counted(len(found.findings), "finding")
    yield f"verified backup {found.name!r} at level {found.level}{read}{opened}, in {duration(found.seconds)}: {verdict}"
    yield from (f"  {finding.kind:10}{finding}" for finding in found.findings[:20])
    if len(found.findings) > 20:
        yield f"  and {len(found.findings) - 20:,} more"
