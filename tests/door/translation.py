"""What a REST import job reads, and the few gRPC imports of 2.3.5 that read the same: pure functions.

A job of 2.4 and later names up to 256 pairs of an insert and maybe a delta directory, lists both, and takes each directory in the first
as a segment, with the one of the same name in the second (``ListBinlogsAndGroupBySegment`` in ``internal/datacoord/import_util.go``).
2.3.5 takes one pair of string prefixes per import, reads everything below, and needs two seconds for each; so pairs that lie side by
side are imported by a common prefix.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_milvus_backup.core.packing import pack

_NO_LIMIT = 1 << 62


class Segment(NamedTuple):
    """One segment as a job's details show it; ``delta`` is empty where it has no deletes."""

    insert: str
    delta: str
    size: int


class Import(NamedTuple):
    """One import of 2.3.5: two string prefixes, and the segments that they pick."""

    insert: str
    delta: str
    segments: list[Segment]


class Keys:
    """All objects that a job may read: size by key."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes, self._sorted = sizes, sorted(sizes)

    def below(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Iterate over keys and sizes by a string prefix."""
        for position in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            key = self._sorted[position]
            if not key.startswith(prefix):
                return
            yield key, self._sizes[key]

    def children(self, prefix: str) -> dict[str, int]:
        """Return the bytes below each directory (or of each object) that a listing with the delimiter ``/`` shows, by its path."""
        found: dict[str, int] = {}
        for key, size in self.below(prefix):
            name, slash, _ = key[len(prefix) :].partition("/")
            found[prefix + name + slash] = found.get(prefix + name + slash, 0) + size
        return found


@dataclass(frozen=True)
class _Pair:
    """One pair of a request that could be imported together with its neighbours."""

    parent: str
    name: str
    #: Where its deletes lie beside those of its neighbours; empty where it has none.
    delta_parent: str
    segments: list[Segment]


def parents(files: Sequence[Sequence[str]]) -> set[str]:
    """Return the directories that must be listed to know what a job reads, and what lies beside that."""
    return {_split(path)[0] for paths in files for path in paths}


def segments_of(paths: Sequence[str], keys: Keys) -> list[Segment]:
    """Return the segments that one pair picks."""
    deltas = {_base(path): path for path in keys.children(paths[1])} if len(paths) > 1 else {}
    return [Segment(path, deltas.get(_base(path), ""), size) for path, size in keys.children(paths[0]).items()]


def imports_of(files: Sequence[Sequence[str]], keys: Keys) -> list[Import]:
    """Return the imports that read exactly what the pairs of a job name; pairs without any object are left out, as the server does.

    A directory that is named twice is imported twice.
    """
    groups: dict[str, list[_Pair]] = {}
    alone: list[Import] = []
    for paths in files:
        segments = segments_of(paths, keys)
        if not segments:
            continue
        pair = _mergeable(paths, segments)
        group = groups.setdefault(pair.parent, []) if pair else []
        if pair is None or pair.name in {other.name for other in group}:
            alone.append(Import(paths[0], paths[1] if any(segment.delta for segment in segments) else "", segments))
        else:
            group.append(pair)
    return [one for group in groups.values() for one in _merged(group, keys)] + alone


def _mergeable(paths: Sequence[str], segments: list[Segment]) -> _Pair | None:
    parent, name = _split(paths[0])
    if not paths[0].endswith("/"):
        return None
    if not any(segment.delta for segment in segments):
        return _Pair(parent, name, "", segments)
    delta_parent, delta_name = _split(paths[1])
    return _Pair(parent, name, delta_parent, segments) if paths[1].endswith("/") and delta_name == name else None


def _merged(pairs: list[_Pair], keys: Keys) -> Iterator[Import]:
    """Merge pairs of one directory. Those without deletes join others, unless deletes that nobody named would be read as well."""
    by_deltas: dict[str, list[_Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: not pair.delta_parent):
        joined = next((place for place in by_deltas if not place or not any(keys.below(f"{place}{pair.name}/"))), "")
        by_deltas.setdefault(pair.delta_parent or joined, []).append(pair)
    for delta_parent, group in by_deltas.items():
        segments = {pair.name: pair.segments for pair in group}
        sizes = {name: sum(segment.size for segment in found) for name, found in segments.items()}
        beside = _names(group[0].parent, keys) | (_names(delta_parent, keys) if delta_parent else set())
        for one in pack(sizes, _NO_LIMIT, beside - set(sizes)):
            picked = [segment for name in one.directories for segment in segments[name]]
            delta = delta_parent + one.prefix if any(segment.delta for segment in picked) else ""
            yield Import(group[0].parent + one.prefix, delta, picked)


def _names(parent: str, keys: Keys) -> set[str]:
    return {_base(path) for path in keys.children(parent)}


def _split(path: str) -> tuple[str, str]:
    parent, slash, name = path.rstrip("/").rpartition("/")
    return parent + slash, name


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def written(files: Iterable[Sequence[str]]) -> str:
    """Return a job's files as the server's messages show them."""
    return "[" + " ".join(" ".join(f'paths:"{path}"' for path in paths) for paths in files) + "]"
