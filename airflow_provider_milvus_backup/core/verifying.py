"""Verifying a backup: everything is there, it is what was backed up, and it is what Milvus writes.

Each level does what the one before does, too:

=============  ====================================================================================================================
``objects``    one listing is compared with the manifest (or the meta): presence, size, ETag; the meta files are read and compared
``checksums``  the objects are read as well, and their content compared with what the manifest knows of it
``binlogs``    and they are opened: what Milvus writes at their head, and the rows of every field against those of the segment
=============  ====================================================================================================================
"""

from __future__ import annotations

from .lease import Owner
from .report import Reporter
from .store import ObjectStore
from .verification import OBJECTS, Verification


def verify(
    store: ObjectStore,
    name: str,
    owner: Owner,
    reporter: Reporter,
    *,
    level: str = OBJECTS,
    sample: str | None = None,
    max_bytes_per_second: float | None = None,
    seed: str | None = None,
) -> Verification:
    """Verify a complete backup of either tool, and write the result beside it; damage is part of the result.

    :param owner: who verifies, as the lease shows it
    :param level: ``objects``, ``checksums`` or ``binlogs``; each does what the one before does, too
    :param sample: the part that is read: ``3/30``, the third of thirty parts that together are everything, or ``5%``, another part every
        time
    :param max_bytes_per_second: how fast to read at most, all streams together
    :param seed: makes a percentage the same part as the last time
    :raises ConfigError: an argument means nothing
    :raises BackupNotFound: there is no complete backup of this name
    :raises StorageError: the store is away or does not let it be read; nothing was found out, and nothing is written
    """
    raise NotImplementedError
