"""Reading what a backup says about itself: its meta files and its manifest, each against what is known of it.

A backup of the official tool, or one that was made before there were manifests, has nothing that its meta could be compared with but
itself: ``full_meta.json`` says the same as the three level files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import layout, manifest, meta, meta_reader, raw_schema
from .attempt import Attempt
from .catalog import replacement
from .catalog_entry import FACTS, MAX_BYTES
from .errors import BackupDamaged, BackupInUse, BackupNotFound, NotInStorage
from .jsonreader import Node
from .manifest import MANIFEST_FILE, Manifest
from .pairing import Contents, pair
from .reader import MAX_META_BYTES, read_backup
from .store import ObjectStore, StoredObject
from .verification import MANIFEST, META, SCHEMAS, Finding

FULL = layout.META_FILES[0]


@dataclass(slots=True)
class Account:
    """What a backup says about itself, as far as it can be read, and what is wrong with that."""

    backup_id: str
    backup: meta.Backup | None = None
    manifest: Manifest | None = None
    #: Whether the ETags of this store are MD5s.
    md5: bool = False
    findings: list[Finding] = field(default_factory=list)
    #: What is worth knowing and no damage.
    notes: list[str] = field(default_factory=list)


def read_account(store: ObjectStore, name: str) -> Account:
    """Return what a complete backup says about itself.

    :raises BackupNotFound: there is no commit mark
    :raises BackupInUse: it has been replaced but for the commit mark
    :raises UnsupportedFormat: this version does not know the format
    :raises StorageError: it cannot be read
    """
    root = store.location.root_path
    try:
        mark, etag = store.read_version(layout.meta_key(root, name, layout.COMMIT_MARK), MAX_META_BYTES)
    except NotInStorage:
        read_backup(store, name)  # raises, and names those that there are
        raise BackupNotFound(f"backup {name!r} was not in {store.location} until this moment; look again") from None
    account = Account("", md5=etag.strip('"').lower() == hashlib.md5(mark, usedforsecurity=False).hexdigest())
    try:
        head = Node.parse(mark, layout.COMMIT_MARK)
        account.backup_id = head.string("id")
        if head.string("name") != name:
            raise BackupDamaged(f"it is of backup {head.string('name')[:128]!r}: the directory was copied or renamed")
    except BackupDamaged as error:
        account.findings.append(Finding(META, f"meta/{layout.COMMIT_MARK}", str(error)))
    _read_manifest(store, name, account)
    _read_schemas(store, name, account)
    _read_meta(store, name, mark, account)
    return account


def _read_manifest(store: ObjectStore, name: str, account: Account) -> None:
    key = f"provider/{MANIFEST_FILE}"
    promised = _is_promised(store, name, account.backup_id)
    try:
        found = manifest.from_json(store.read(layout.join(store.location.root_path, name, key), MAX_META_BYTES))
    except NotInStorage:
        if promised:
            account.findings.append(Finding(MANIFEST, key, "is missing, and was written when the backup was made"))
        return
    except BackupDamaged as error:
        account.findings.append(Finding(MANIFEST, key, str(error)))
        return
    if found.backup_id == account.backup_id:
        account.manifest, account.md5 = found, found.md5
    elif promised:
        account.findings.append(Finding(MANIFEST, key, f"is of another backup, {found.backup_id[:64]!r}"))
    else:
        account.notes.append("the manifest is of another attempt, which was not finished; the objects are compared with the meta")


def _is_promised(store: ObjectStore, name: str, backup_id: str) -> bool:
    """Return whether what the catalog shows of this backup says that there is a manifest."""
    try:
        facts = Node.parse(store.read(layout.join(store.location.root_path, name, FACTS), MAX_BYTES), FACTS)
        return facts.string("backup_id") == backup_id and facts.boolean("manifest")
    except (NotInStorage, BackupDamaged):
        return False


def _read_schemas(store: ObjectStore, name: str, account: Account) -> None:
    key = f"provider/{raw_schema.SCHEMAS_FILE}"
    try:
        content = store.read(layout.join(store.location.root_path, name, key), MAX_META_BYTES)
        if Node.parse(content, raw_schema.SCHEMAS_FILE).string("backup_id") == account.backup_id:
            raw_schema.from_file(content, account.backup_id)
        else:
            account.notes.append("the schemas are of another attempt, which was not finished; a restore goes by the meta alone")
    except NotInStorage:
        if account.manifest:
            account.findings.append(Finding(SCHEMAS, key, "is missing; a restore goes by the meta alone"))
    except BackupDamaged as error:
        account.findings.append(Finding(SCHEMAS, key, f"{error}; a restore goes by the meta alone"))


def _read_meta(store: ObjectStore, name: str, mark: bytes, account: Account) -> None:
    known = account.manifest.meta if account.manifest else {}
    files, levels = {layout.COMMIT_MARK: mark}, dict[str, bytes]()
    for file in layout.META_FILES:
        content = mark if file == layout.COMMIT_MARK else _content(store, name, file)
        if content is None:
            if file in known:
                account.findings.append(Finding(META, f"meta/{file}", "is missing"))
            continue
        if file in known and known[file] != (len(content), hashlib.sha256(content).hexdigest()):
            account.findings.append(Finding(META, f"meta/{file}", "is not the one that was written: its size or its SHA-256 is another"))
        if file == FULL:
            files[file] = content
        elif not known or FULL not in files:
            levels[file] = content
    try:
        account.backup = meta_reader.from_files(files if FULL in files else levels)
        if (account.backup.backup_id, account.backup.name) != (account.backup_id, name):
            raise BackupDamaged(f"it is of backup {account.backup.name[:128]!r} with another id or name than {layout.COMMIT_MARK} has")
        account.notes += account.backup.warnings
        if not known and FULL in files:
            account.findings += _disagreement(account.backup, levels)
    except BackupDamaged as error:
        account.findings.append(Finding(META, f"meta/{FULL if FULL in files else 'collection_meta.json'}", str(error)))
    if any(finding.kind == META for finding in account.findings) and (attempt := replacement(store, name, account.backup_id)):
        _allow_for(account, attempt)
    if account.manifest and account.backup and any(finding.kind == META for finding in account.findings):
        account.findings += _against(account.backup, account.manifest)


def _allow_for(account: Account, attempt: Attempt) -> None:
    """Take what a replacement that has not been committed has written of its meta for no damage.

    :raises BackupInUse: it lacks but the commit mark
    """
    if account.backup and account.backup.backup_id == attempt.backup_id:
        raise BackupInUse(
            f"backup {account.backup.name!r} was replaced by {attempt.owner} but for the commit mark. If that run is at work, verify again "
            "when it is done; if it is dead, run that backup again: it finishes what is there"
        )
    levels = {f"meta/{file}" for file in layout.META_FILES[1:4]}
    if others := [finding for finding in account.findings if finding.kind == META and finding.key in levels]:
        account.findings = [finding for finding in account.findings if finding not in others]
        account.notes.append(f"{attempt.owner} has begun to replace the backup: its level files are of the new one, and nothing reads them")


def _content(store: ObjectStore, name: str, file: str) -> bytes | None:
    try:
        return store.read(layout.meta_key(store.location.root_path, name, file), MAX_META_BYTES)
    except NotInStorage:
        return None


def _disagreement(backup: meta.Backup, levels: dict[str, bytes]) -> list[Finding]:
    """Return where full_meta.json and the level files, as far as there are any, say different things."""
    if any(file not in levels for file in layout.META_FILES[1:4]):
        return []
    key = "meta/segment_meta.json"
    try:
        other = meta_reader.from_files(levels)
    except BackupDamaged as error:
        return [Finding(META, key, str(error))]
    one, two = _segments(backup), _segments(other)
    return [
        Finding(META, key, f"says something else about segment {ids[2]} than {FULL}", *ids)
        for ids in sorted(one.keys() | two.keys())
        if one.get(ids) != two.get(ids)
    ]


def _segments(backup: meta.Backup) -> dict[tuple[int, int, int], tuple[int, int, int]]:
    """Return rows, objects and bytes of every segment in a partition; the level files do not have those for all partitions."""
    return {
        (collection.collection_id, partition.partition_id, segment.segment_id): (segment.rows, segment.objects, segment.size)
        for collection in backup.collections
        for partition in collection.partitions
        for segment in partition.segments
    }


def _against(backup: meta.Backup, known: Manifest) -> list[Finding]:
    """Return what a meta that was changed says otherwise than the manifest."""
    contents, found = Contents(backup), []
    if backup.format == meta.SNAPSHOT:
        return []
    for recorded, said in pair(known.objects(), (StoredObject(*one[:3]) for one in contents.objects())):
        one = recorded or said
        if one and (recorded is None or said is None or recorded.size != said.size):
            detail = "the meta names no such object" if said is None else "the meta names it with another size, or it was not backed up"
            found.append(contents.finding(META, one.key, detail))
    return found
