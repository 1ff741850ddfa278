"""Which import jobs restore a partition: pure functions.

Milvus 2.3 takes one insert path and one delta path per job, reads everything below them, and works on one job at a time with a pause of
about two seconds, so that few large jobs are what a fast restore needs. It lists paths as plain string prefixes: ``…/4470`` picks all
segments whose ids begin with these digits. A partition that is too large for one job is therefore cut along the digits of its segment ids,
and no object has to be copied into another place to form groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple


class Pack(NamedTuple):
    """The directories one job imports, and the string prefix that picks exactly these."""

    prefix: str
    directories: tuple[str, ...]
    size: int


def pack(sizes: Mapping[str, int], limit: int, avoid: Collection[str] = ()) -> list[Pack]:
    """Cut directories into jobs of at most ``limit`` bytes each, largest job first.

    :param sizes: bytes below each directory of one partition; names are ids
    :param limit: bytes of one job at most; a directory that is larger gets a job of its own
    :param avoid: directories that lie beside these and must not be picked by any prefix
    """
    packs = _cut("", sorted(sizes), sizes, limit, sorted(avoid)) if sizes else ()
    return sorted(packs, key=lambda one: (-one.size, one.prefix))


def _cut(prefix: str, names: list[str], sizes: Mapping[str, int], limit: int, avoid: list[str]) -> Iterator[Pack]:
    total = sum(sizes[name] for name in names)
    if len(names) == 1:
        yield Pack(f"{names[0]}/", (names[0],), total)
    elif total <= limit and not avoid:
        yield Pack(prefix, tuple(names), total)
    else:
        for begin, group in groupby(names, key=lambda name: name[: len(prefix) + 1]):
            members = list(group)
            if begin == prefix:  # the name that ends here; the others only begin like it
                yield from _cut(prefix, members, sizes, limit, [])
            else:
                yield from _cut(begin, members, sizes, limit, [name for name in avoid if name.startswith(begin)])
