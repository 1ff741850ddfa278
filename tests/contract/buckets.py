"""The object store a model keeps its data in: a dict, or a real bucket."""

from __future__ import annotations

from typing import Any, Protocol

import obstore


class Bucket(Protocol):
    """What a Milvus needs of its bucket. Prefixes are strings, not directories, as in S3."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""

    def get(self, key: str) -> bytes:
        """Return an object; raises KeyError when there is none."""

    def list(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""

    def delete(self, key: str) -> None:
        """Delete an object if there is one."""


class MemoryBucket:
    """A bucket in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.objects[key] = content

    def get(self, key: str) -> bytes:
        """Return an object; raises KeyError when there is none."""
        return self.objects[key]

    def list(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""
        return sorted(key for key in self.objects.copy() if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Delete an object if there is one."""
        self.objects.pop(key, None)


class S3Bucket:
    """A bucket of a real S3.

    :param store: an ``obstore.store.S3Store``
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        obstore.put(self._store, key, content)

    def get(self, key: str) -> bytes:
        """Return an object; raises KeyError when there is none."""
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise KeyError(key) from None

    def list(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted; obstore itself lists by directory."""
        below = prefix.rpartition("/")[0]
        pages = obstore.list(self._store, below or None)
        return sorted(item["path"] for page in pages for item in page if item["path"].startswith(prefix))

    def delete(self, key: str) -> None:
        """Delete an object if there is one."""
        obstore.delete(self._store, key)


def children(bucket: Bucket, prefix: str) -> list[str]:
    """Return what a listing with delimiter ``/`` answers: keys right below ``prefix``, and common prefixes with their slash."""
    found: dict[str, None] = {}
    for key in bucket.list(prefix):
        name, slash, _ = key[len(prefix) :].partition("/")
        found[prefix + name + slash] = None
    return list(found)
