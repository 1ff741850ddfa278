"""The manifest: what every object of a backup was when the backup was committed. Pure functions.

``provider/manifest.json`` is written before the commit mark. Objects come in the order of a listing, grouped by directory and column by
column, so that a million of them take some 80 MB::

    {"version": 1, "sha256": "<of the text of body>", "body": {
      "backup_id": …,
      "md5": true,                                    an ETag without a dash is the MD5 of the content
      "meta": {"full_meta.json": [size, "<sha256>"]}, the commit mark, too
      "objects": [["binlogs/insert_log/1/2/3/3/", ["0/4", "1/5"], [sizes], [ETags], [checksums]]]}}

A checksum is ``<algorithm>:<base64>``, as the store computed it, or empty; a group in which all are empty leaves them out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from . import layout
from .errors import BackupDamaged
from .jsonreader import MAX_INT64, Node

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 1
_PLACES = ("binlogs/", "bundle/")


class Recorded(NamedTuple):
    """One object as it was: its key below the backup's directory, its size in bytes, its ETag, and a checksum of the store or nothing."""

    key: str
    size: int
    etag: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says, but for the objects, which :meth:`objects` iterates over.

    :param backup_id: of which backup it is
    :param md5: whether an ETag of this store without a dash is the MD5 of the content
    :param meta: size and SHA-256 by meta file
    """

    backup_id: str
    md5: bool
    meta: Mapping[str, tuple[int, str]]
    groups: list[list[Any]] = field(default_factory=list, repr=False)

    def objects(self) -> Iterator[Recorded]:
        """Iterate over the objects, in the order in which a listing showed them."""
        for directory, names, sizes, etags, *rest in self.groups:
            checksums = rest[0] if rest else [""] * len(names)
            for name, size, etag, checksum in zip(names, sizes, etags, checksums, strict=True):
                yield Recorded(directory + name, size, etag, checksum)


def to_json(backup_id: str, meta: Mapping[str, tuple[int, str]], objects: Iterable[Recorded], *, md5: bool) -> bytes:
    """Return the content of ``provider/manifest.json``; see :class:`Manifest` for the arguments."""
    groups = []  # each as text at once: a tree of all would need several times the memory
    for directory, together in groupby(objects, key=lambda item: _directory(item.key)):
        found = list(together)
        columns: list[list[Any]] = [[item.key[len(directory) :] for item in found], [i.size for i in found], [i.etag for i in found]]
        if any(item.checksum for item in found):
            columns.append([item.checksum for item in found])
        groups.append(_text([directory, *columns]))
    document = _text({"backup_id": backup_id, "md5": md5, "meta": {file: list(known) for file, known in meta.items()}})
    body = f'{document[:-1]},"objects":[{",".join(groups)}]}}'.encode()
    return _head(hashlib.sha256(body).hexdigest()) + body + b"}"


def from_json(content: bytes) -> Manifest:
    """Return what :func:`to_json` wrote; raises BackupDamaged for anything else, be it one character."""
    root = Node.parse(content, MANIFEST_FILE)
    if root.integer("version") != MANIFEST_VERSION:
        raise root.wrong("version", str(MANIFEST_VERSION))
    head = _head(root.string("sha256"))
    if not content.startswith(head) or hashlib.sha256(content[len(head) : -1]).hexdigest() != root.string("sha256"):
        raise BackupDamaged(f"{MANIFEST_FILE} is not what was written: its own SHA-256 does not fit")
    body = Node(root.value.get("body"), f"{MANIFEST_FILE}.body")
    files = Node(body.value.get("meta"), f"{body.where}.meta")
    meta = {file: _known(files, file) for file in files.value}
    found = Manifest(body.string("backup_id"), body.boolean("md5"), meta, body.items("objects"))
    keys = set[str]()
    for index, group in enumerate(found.groups):
        _check_group(group, f"{body.where}.objects[{index}]")
        keys.update(group[0] + name for name in group[1])
    if len(keys) != sum(len(group[1]) for group in found.groups):
        raise BackupDamaged(f"{MANIFEST_FILE} names an object twice")
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _head(digest: str) -> bytes:
    return f'{{"version":{MANIFEST_VERSION},"sha256":"{digest}","body":'.encode()


def _directory(key: str) -> str:
    """Return what the keys of one segment have in common: insert logs lie in directories of their fields."""
    return key.rsplit("/", 2 if key.startswith(f"binlogs/{layout.INSERT}/") else 1)[0] + "/"


def _known(files: Node, file: str) -> tuple[int, str]:
    found = files.items(file)
    if len(found) != 2 or not _is_size(found[0]) or not isinstance(found[1], str):
        raise files.wrong(file, "a size and a SHA-256")
    return found[0], found[1]


def _check_group(group: Any, where: str) -> None:
    if not (isinstance(group, list) and len(group) in (4, 5) and isinstance(group[0], str)):
        raise BackupDamaged(f"{where} is not a directory with columns of names, sizes and ETags")
    directory, names, sizes, *texts = group
    if not directory.startswith(_PLACES) or not directory.endswith("/") or ".." in directory.split("/"):
        raise BackupDamaged(f"{where} is of {directory[:60]!r}, where a backup has no data")
    columns = (names, sizes, *texts)
    if not all(isinstance(column, list) and len(column) == len(names) for column in columns):
        raise BackupDamaged(f"{where} has columns of different length")
    if not all(isinstance(value, str) for column in (names, *texts) for value in column) or not all(map(_is_size, sizes)):
        raise BackupDamaged(f"{where} holds a value that is no name, size, ETag or checksum")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_INT64
