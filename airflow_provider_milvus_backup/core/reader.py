"""Reading a complete backup's meta."""

from __future__ import annotations

import difflib

from . import layout, meta, meta_reader, raw_schema
from .errors import BackupDamaged, BackupNotFound, NotInStorage
from .jsonreader import Node
from .names import check_backup_name
from .report import Reporter
from .store import ObjectStore

#: No meta file is larger; guards against reading something else.
MAX_META_BYTES = 2 * 1024**3


def read_backup(store: ObjectStore, name: str) -> meta.Backup:
    """Return a complete backup's meta; full_meta.json where there is one, else the level files.

    :raises BackupNotFound: there is no commit mark
    :raises BackupDamaged: the meta cannot be trusted
    """
    check_backup_name(name)
    root = store.location.root_path
    try:
        files = {layout.COMMIT_MARK: store.read(layout.meta_key(root, name, layout.COMMIT_MARK), MAX_META_BYTES)}
    except NotInStorage as error:
        if "bucket does not exist" in str(error):
            raise
        existing = store.directories(f"{root}/" if root else "")
        close = difflib.get_close_matches(name, existing, 3)
        known = f"; complete or unfinished backups there: {', '.join([*close, *(o for o in existing if o not in close)][:10])}"
        known = known if existing else "; there are no backups"
        raise BackupNotFound(f"backup {name!r} does not exist in {store.location}{known}") from None
    for file in layout.META_FILES[:-1]:
        try:
            files[file] = store.read(layout.meta_key(root, name, file), MAX_META_BYTES)
        except NotInStorage:
            continue
        if file == "full_meta.json":
            break
    return meta_reader.from_files(files)


def read_schemas(store: ObjectStore, backup: meta.Backup, reporter: Reporter) -> dict[int, bytes]:
    """Return the schemas that Milvus described when the backup was made, by collection id; none for a backup of the official tool."""
    key = layout.provider_key(store.location.root_path, backup.name, raw_schema.SCHEMAS_FILE)
    try:
        return raw_schema.from_file(store.read(key, MAX_META_BYTES), backup.backup_id)
    except NotInStorage:
        return {}
    except BackupDamaged as error:
        reporter.warn(f"{error}; collections are created from the meta of the official format alone")
        return {}


def committed(store: ObjectStore, name: str) -> tuple[str | None, str]:
    """Return (id, ETag) of a complete backup's commit mark; (None, "") when there is none."""
    try:
        content, etag = store.read_version(layout.meta_key(store.location.root_path, name, layout.COMMIT_MARK), MAX_META_BYTES)
    except NotInStorage:
        return None, ""
    return Node.parse(content, layout.COMMIT_MARK).string("id"), etag
