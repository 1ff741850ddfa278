"""Taking stock at the end of a backup: what becomes the manifest, and what the store can say about content.

One HEAD of a small file whose content is known tells whether the store's ETags are MD5s, and whether it computes checksums of its own.
Where an ETag does not prove an object's content and the store has a checksum, that is asked for, one HEAD an object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from . import digests, layout, manifest, meta
from .errors import StorageDenied
from .manifest import MANIFEST_FILE, Recorded
from .store import ObjectStore, StoredObject

#: HEAD requests at once.
THREADS = 32
#: Larger files are written in parts, and their ETags prove nothing about those of others.
_SMALL = 4 * 1024**2
#: Objects whose requests wait for one another.
_BATCH = 10_000


class Inventory:
    """What a backup consists of; first its meta files, then its objects."""

    def __init__(self, store: ObjectStore, backup: meta.Backup) -> None:
        self.store, self.backup = store, backup
        self._meta: dict[str, tuple[int, str]] = {}
        #: The smallest meta file that is written by then, its name, and the MD5 of its content.
        self._known: tuple[int, str, str] | None = None

    def add(self, file: str, content: bytes) -> None:
        """Take note of a meta file; the level files are written when :meth:`write` is called."""
        self._meta[file] = len(content), hashlib.sha256(content).hexdigest()
        written = file not in (layout.FULL_META, layout.COMMIT_MARK)
        if written and len(content) <= _SMALL and (self._known is None or len(content) < self._known[0]):
            self._known = len(content), file, hashlib.md5(content, usedforsecurity=False).hexdigest()

    def write(self, copied: Iterable[StoredObject]) -> None:
        """Write the manifest.

        :param copied: all objects of the backup, in the order of a listing
        """
        root, name = self.store.location.root_path, self.backup.name
        md5, checksums = self._habits()
        directory = layout.backup_dir(root, name)
        recorded: Iterator[Recorded] = (Recorded(item.key[len(directory) :], item.size, item.etag) for item in copied)
        if checksums:
            recorded = self._with_checksums(directory, recorded, md5=md5)
        content = manifest.to_json(self.backup.backup_id, self._meta, recorded, md5=md5)
        self.store.write(layout.provider_key(root, name, MANIFEST_FILE), content)

    def _habits(self) -> tuple[bool, bool]:
        """Return whether the store's ETags are MD5s, and whether it computes checksums."""
        if self._known is None:
            return False, False
        _, file, md5 = self._known
        key = layout.meta_key(self.store.location.root_path, self.backup.name, file)
        try:
            answer = self.store.head_with_checksum(key)
        except StorageDenied:  # checksums of what KMS encrypts need a permission of their own
            return self.store.head(key).etag.lower() == md5, False
        return str(answer.get("ETag", "")).strip('"').lower() == md5, bool(digests.checksum_of(answer))

    def _with_checksums(self, directory: str, recorded: Iterator[Recorded], *, md5: bool) -> Iterator[Recorded]:
        def asked(item: Recorded) -> Recorded:
            self.store.patience.check("the manifest was made; a retry goes on from here")
            if md5 and digests.is_plain(item.etag):
                return item
            answer: Any = self.store.head_with_checksum(f"{directory}{item.key}")
            return item._replace(checksum=digests.checksum_of(answer))

        with ThreadPoolExecutor(THREADS, "checksums") as pool:
            while batch := list(islice(recorded, _BATCH)):
                yield from pool.map(asked, batch)
