"""The end of a backup: prove that everything is there, write the meta files, remove what the backup replaces."""

from __future__ import annotations

from collections.abc import Iterable

from . import exporting, layout, meta, meta_writer, reuse, snapshots
from .attempt import ATTEMPT_FILE, Attempt
from .copier import make_way
from .errors import BackupDamaged, BackupError, BackupExists, NotInStorage, ObjectChanged, TakenOver, UnsupportedFormat
from .inventory import Inventory
from .lease import Lease, in_use
from .plan import PLAN_FILE, BackupPlan
from .reader import MAX_META_BYTES, committed
from .report import Reporter, counted
from .restore_plan import expected_objects
from .store import ObjectStore, StoredObject


def find_attempt(store: ObjectStore, name: str) -> Attempt | None:
    """Return who has begun to write a backup last, None when nobody has."""
    try:
        return Attempt.from_json(store.read(layout.provider_key(store.location.root_path, name, ATTEMPT_FILE), MAX_META_BYTES))
    except NotInStorage:
        return None


def recorded(store: ObjectStore, name: str, reporter: Reporter) -> dict[str, str]:
    """Return the source's ETag of every object that the plan which is there names, by destination."""
    try:
        plan = BackupPlan.from_json(store.read(layout.provider_key(store.location.root_path, name, PLAN_FILE), MAX_META_BYTES))
    except NotInStorage:
        return {}
    except (BackupDamaged, UnsupportedFormat) as error:
        reporter.warn(f"{error}; only objects whose own ETag is right are used again")
        return {}
    return {copy.destination: copy.etag for copy in plan.copies()}


def check_copied(store: ObjectStore, plan: BackupPlan) -> list[StoredObject]:
    """Return the objects of the plan as they are at the destination, in the order of the listing.

    :raises BackupError: not exactly these are there, each of its size
    """
    name = plan.backup.name
    bundle: list[StoredObject] = []
    if plan.backup.format == meta.SNAPSHOT:
        bundle = snapshots.check_exported(store, plan.backup)
    wrong = {copy.destination: copy.size for copy in plan.copies()}  # until they are found
    copied, others = list[StoredObject](), list[str]()
    for item in store.objects(layout.binlogs_dir(plan.backup_root, name)):
        if wrong.get(item.key) == item.size:
            del wrong[item.key]
            copied.append(item)
        elif item.key not in wrong:
            others.append(item.key)
    extra = reuse.outside(others, plan) if plan.replaces else others
    if wrong or extra:
        if not plan.replaces:  # else they may be objects of the backup that is still there
            make_way(store, wrong)
        examples = ", ".join([*list(wrong)[:3], *extra[:3]])
        raise BackupError(
            f"backup {name!r} is not what was planned: {len(wrong):,} objects are missing or have another size, {len(extra):,} are not "
            f"part of it ({examples}); run the backup again under the same name to repair it"
        )
    return copied + bundle


def write_meta(store: ObjectStore, plan: BackupPlan, lease: Lease | None, copied: Iterable[StoredObject]) -> None:
    """Write the meta files and the manifest, the commit mark last.

    :param copied: what :func:`check_copied` has found
    :raises TakenOver: another run has begun to write this backup
    :raises BackupExists: another run has committed it in this moment
    """
    root, name = plan.backup_root, plan.backup.name
    attempt = find_attempt(store, name)
    if attempt is None or attempt.backup_id != plan.backup.backup_id:
        raise TakenOver(f"backup {name!r} is by now written by {attempt.owner if attempt else 'nobody'}; this run stops")
    if lease:
        lease.renew()
    inventory = Inventory(store, plan.backup)
    last: dict[str, bytes] = {}  # what says which backup this is; the manifest comes before, for it may take minutes
    for file, content in meta_writer.to_files(plan.backup, plan.milvus_root):
        inventory.add(file, content)
        if file in (layout.FULL_META, layout.COMMIT_MARK):
            last[file] = content
        else:
            store.write(layout.meta_key(root, name, file), content)
    inventory.write(copied)
    mark = layout.meta_key(root, name, layout.COMMIT_MARK)
    try:
        finished, etag = committed(store, name)
        if finished not in (None, plan.replaces, plan.backup.backup_id):
            raise ObjectChanged
        store.write(layout.meta_key(root, name, layout.FULL_META), last[layout.FULL_META])
        if finished is None:
            store.create(mark, last[layout.COMMIT_MARK])
        elif finished == plan.replaces:
            store.swap(mark, last[layout.COMMIT_MARK], etag)
    except ObjectChanged:
        raise BackupExists(f"backup {name!r} was committed by another run in this moment; this one stops") from None


def object_keys(store: ObjectStore, backup: meta.Backup) -> set[str]:
    """Return the keys of all data objects of a backup."""
    binlogs = layout.binlogs_dir(store.location.root_path, backup.name)
    return {key for collection in backup.collections for key, _ in expected_objects(collection, binlogs)}


def remove_replaced(store: ObjectStore, backup: meta.Backup, lease: Lease | None, reporter: Reporter) -> None:
    """Remove the objects that only the replaced backup needed, unless it is being restored."""
    root, mine = store.location.root_path, lease.holding.token if lease else ""
    readers = [str(held) for held in in_use(store, root, backup.name) if held.token != mine]
    if readers:
        reporter.warn(f"the replaced backup's objects stay until the next replacement, for it is in use by {', '.join(readers)}")
        return
    named = object_keys(store, backup)
    if backup.format != meta.SNAPSHOT:  # it may have replaced one that was
        exporting.remove_strays(store, backup, reporter)
    removed = store.delete(item.key for item in store.objects(layout.binlogs_dir(root, backup.name)) if item.key not in named)
    reporter.line(f"removed {counted(removed, 'object')} of the replaced backup")
