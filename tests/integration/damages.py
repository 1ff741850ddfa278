"""Everything that can be wrong with a backup: each damage is done to a copy of a real one, and mended again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_milvus_backup.core.store import ObjectStore

FULL, MARK, MANIFEST = "meta/full_meta.json", "meta/backup_meta.json", "provider/manifest.json"
LEVEL_FILES = ("meta/collection_meta.json", "meta/partition_meta.json", "meta/segment_meta.json")


class Log(NamedTuple):
    """One object of the data: its key below the backup, its segment, its field (None of a delta log), its content."""

    key: str
    segment: int
    field: int | None
    content: bytes


@dataclass
class Copy:
    """A backup in a place of its own: its name, its store and its files by their key below the backup."""

    name: str
    store: ObjectStore
    files: dict[str, bytes]
    #: What is not as it was, by key.
    _touched: set[str] = field(default_factory=set)

    def write_all(self) -> Copy:
        """Put all files there, the commit mark last."""
        for key in sorted(self.files, key=lambda key: (key == MARK, key)):
            self.store.write(self.at(key), self.files[key])
        return self

    def at(self, key: str) -> str:
        """Return the key of a file in its bucket."""
        return f"{self.store.location.root_path}/{self.name}/{key}"

    @property
    def manifest(self) -> bool:
        """Whether the backup has a manifest."""
        return MANIFEST in self.files

    @property
    def only_logs(self) -> bool:
        """Whether nothing but data is damaged, so that every finding is about a segment."""
        return all(key.startswith("binlogs/") for key in self._touched)

    def put(self, key: str, content: bytes) -> None:
        """Replace or add a file."""
        assert self.files.get(key) != content, f"{key} is not damaged"
        self._touched.add(key)
        self.store.write(self.at(key), content)

    def remove(self, key: str) -> None:
        """Remove a file that is there."""
        assert key in self.files, key
        self._touched.add(key)
        self.store.delete([self.at(key)])

    @contextmanager
    def damaged(self) -> Iterator[Copy]:
        """Mend at the end whatever was done meanwhile."""
        try:
            yield self
        finally:
            for key in self._touched:
                if key in self.files:
                    self.store.write(self.at(key), self.files[key])
                else:
                    self.store.delete([self.at(key)])
            self._touched.clear()

    # ---- what there is to damage ---------------------------------------------------------------------------------------------

    def logs(self) -> list[Log]:
        """Return all data, by key."""
        found = []
        for key in sorted(key for key in self.files if key.startswith("binlogs/")):
            parts = key.split("/")
            insert = parts[1] == "insert_log"
            found.append(Log(key, int(parts[-3 if insert else -2]), int(parts[-2]) if insert else None, self.files[key]))
        return found

    def log(self, of: int | None = 101) -> Log:
        """Return the log of a field, or a delta log, of a segment that has both."""
        deleted = {log.segment for log in self.logs() if log.field is None}
        return next(log for log in self.logs() if log.field == of and log.segment in deleted)

    def pair(self, fits: Callable[[Log, Log], bool]) -> tuple[Log, Log]:
        """Return two logs that differ and fit."""
        logs = self.logs()
        return next((a, b) for a in logs for b in logs if a.key < b.key and a.content != b.content and fits(a, b))


def flip(content: bytes, byte: int, bit: int = 0) -> bytes:
    """Return the content with one bit flipped."""
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


def swap(copy: Copy, a: Log, b: Log) -> set[int]:
    """Put each of two logs in the place of the other, and return their segments."""
    copy.put(a.key, b.content)
    copy.put(b.key, a.content)
    return {a.segment, b.segment}


def change(copy: Copy, key: str, edit: Callable[[Any], object]) -> None:
    """Edit a JSON file."""
    document = json.loads(copy.files[key])
    edit(document)
    copy.put(key, json.dumps(document).encode())


def segments_of(document: Any) -> Iterator[list[Any]]:
    """Iterate over the lists of segments of a meta file of any level."""
    for item in (*document.get("infos", ()), *document.get("collection_backups", ())):
        for partition in item.get("partition_backups") or ():
            if partition.get("segment_backups"):
                yield partition["segment_backups"]
    if "segment_id" in next(iter(document.get("infos", ())), {}):
        yield document["infos"]


def edit_segment(copy: Copy, files: tuple[str, ...], edit: Callable[[list[Any], Any], object]) -> set[int]:
    """Edit what meta files say of one segment, ``edit`` gets the list it is in, and return its id."""
    wanted = copy.log().segment

    def change_it(document: Any) -> None:
        (where, segment), *_ = [(where, one) for where in segments_of(document) for one in where if one["segment_id"] == wanted]
        edit(where, segment)

    for file in files:
        change(copy, file, change_it)
    return {wanted}


# ---- the damages -------------------------------------------------------------------------------------------------------------------
#
# Each returns the segments that it damages; nothing where it damages the backup as a whole.


def nothing(copy: Copy) -> set[int]:
    """Leave the backup as it is."""
    return set()


def bit_in_data(copy: Copy) -> set[int]:
    """Flip a bit of the compressed values of a vector field."""
    log = copy.log(102)
    copy.put(log.key, flip(log.content, log.content.index(b"\x28\xb5\x2f\xfd") + 12))  # behind the head of a zstd frame
    return {log.segment}


def bit_in_head(copy: Copy) -> set[int]:
    """Flip a bit of the segment that the head of an insert log names."""
    log = copy.log()
    copy.put(log.key, flip(log.content, 37))
    return {log.segment}


def bit_in_footer(copy: Copy) -> set[int]:
    """Flip a bit of the length of the footer."""
    log = copy.log()
    copy.put(log.key, flip(log.content, len(log.content) - 8))
    return {log.segment}


def bit_in_delta(copy: Copy) -> set[int]:
    """Flip a bit of the lengths in the head of a delta log."""
    log = copy.log(None)
    copy.put(log.key, flip(log.content, 13))
    return {log.segment}


def truncated(copy: Copy) -> set[int]:
    """Cut a log in the middle."""
    log = copy.log()
    copy.put(log.key, log.content[: len(log.content) // 2])
    return {log.segment}


def missing(copy: Copy) -> set[int]:
    """Remove an insert log."""
    log = copy.log()
    copy.remove(log.key)
    return {log.segment}


def missing_delta(copy: Copy) -> set[int]:
    """Remove a delta log, so that deleted rows would come back."""
    log = copy.log(None)
    copy.remove(log.key)
    return {log.segment}


def extra(copy: Copy) -> set[int]:
    """Put a further log beside one, which a restore would import."""
    log = copy.log()
    copy.put(f"{log.key}1", log.content)
    return {log.segment}


def swapped_segments(copy: Copy) -> set[int]:
    """Swap the logs of one field of two segments, of the same size."""
    fits = lambda a, b: a.field == b.field is not None and len(a.content) == len(b.content) and a.segment != b.segment  # noqa: E731
    return swap(copy, *copy.pair(fits))


def swapped_fields(copy: Copy) -> set[int]:
    """Swap the logs of two fields of a segment, of the same size."""
    fits = lambda a, b: a.segment == b.segment and len(a.content) == len(b.content)  # noqa: E731
    return swap(copy, *copy.pair(fits))


def rows(copy: Copy) -> set[int]:
    """Let full_meta.json name other rows."""
    return edit_segment(copy, (FULL,), lambda _, segment: segment.update(num_of_rows=segment["num_of_rows"] + 1))


def rows_everywhere(copy: Copy) -> set[int]:
    """Let every meta file name other rows."""
    return edit_segment(copy, (FULL, LEVEL_FILES[2]), lambda _, segment: segment.update(num_of_rows=segment["num_of_rows"] + 1))


def sizes_everywhere(copy: Copy) -> set[int]:
    """Let every meta file name another size of a log."""
    edit = lambda _, segment: segment["binlogs"][0]["binlogs"][0].update(log_size=1)  # noqa: E731
    return edit_segment(copy, (FULL, LEVEL_FILES[2]), edit)


def segment_gone(copy: Copy) -> set[int]:
    """Take a segment out of full_meta.json."""
    return edit_segment(copy, (FULL,), lambda where, segment: where.remove(segment))


def segment_gone_everywhere(copy: Copy) -> set[int]:
    """Take a segment out of every meta file."""
    return edit_segment(copy, (FULL, LEVEL_FILES[2]), lambda where, segment: where.remove(segment))


def meta_cut(copy: Copy) -> set[int]:
    """Cut full_meta.json."""
    copy.put(FULL, copy.files[FULL][:-100])
    return set()


def level_file_cut(copy: Copy) -> set[int]:
    """Cut a level file, which nobody reads as long as full_meta.json is there."""
    copy.put(LEVEL_FILES[2], copy.files[LEVEL_FILES[2]][:-100])
    return set()


def full_meta_missing(copy: Copy) -> set[int]:
    """Remove full_meta.json; the level files say the same, but for what they leave out."""
    copy.remove(FULL)
    return set()


def manifest_missing(copy: Copy) -> set[int]:
    """Remove the manifest."""
    copy.remove(MANIFEST)
    return set()


def manifest_cut(copy: Copy) -> set[int]:
    """Cut the manifest."""
    copy.put(MANIFEST, copy.files[MANIFEST][:-50])
    return set()


def manifest_changed(copy: Copy) -> set[int]:
    """Change a size in the manifest."""
    change(copy, MANIFEST, lambda document: document["body"]["objects"][0][2].__setitem__(0, 1))
    return set()


#: By how the page names them; where a backup has no manifest the last three cannot happen to it.
DAMAGES: dict[str, Callable[[Copy], set[int]]] = {
    "nothing": nothing,
    "an insert log is missing": missing,
    "a delta log is missing": missing_delta,
    "a log is cut in the middle": truncated,
    "there is one log more in a segment": extra,
    "a bit flipped in the values of a log": bit_in_data,
    "a bit flipped in the head of an insert log": bit_in_head,
    "a bit flipped in the footer of an insert log": bit_in_footer,
    "a bit flipped in the head of a delta log": bit_in_delta,
    "two logs of one size are swapped, one field of two segments": swapped_segments,
    "two logs of one size are swapped, two fields of a segment": swapped_fields,
    "`full_meta.json` names other rows of a segment": rows,
    "all meta files name other rows of a segment": rows_everywhere,
    "all meta files name another size of a log": sizes_everywhere,
    "`full_meta.json` lacks a segment": segment_gone,
    "all meta files lack a segment": segment_gone_everywhere,
    "`full_meta.json` is not readable": meta_cut,
    "`full_meta.json` is missing": full_meta_missing,
    "a level file is not readable": level_file_cut,
    "the manifest is missing": manifest_missing,
    "the manifest is not readable": manifest_cut,
    "the manifest was changed": manifest_changed,
}
OF_A_MANIFEST = frozenset({manifest_missing, manifest_cut, manifest_changed})
