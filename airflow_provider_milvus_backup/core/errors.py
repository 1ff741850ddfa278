"""Every error this package raises on purpose.

::

    MilvusBackupError
    ├── ConfigError            an argument, connection field or backup.yaml key is wrong (also a ValueError)
    ├── ServerError            Milvus refused or failed a request
    │   ├── ServerUnreachable  nothing answered within the time allowed
    │   ├── AuthError          wrong user, password or token, or a missing privilege
    │   └── UnsupportedServer  this Milvus lacks what the request needs
    ├── StorageError           object storage refused or failed a request
    │   ├── StorageDenied      wrong key or missing permission
    │   ├── NotInStorage       the bucket or the object does not exist
    │   └── ObjectChanged      a conditional write found the object in another state
    ├── BackupError            a backup cannot be made or read
    │   ├── BackupExists       the backup name is taken
    │   ├── BackupInUse        another run is writing the backup
    │   ├── BackupNotFound     no complete backup has that name
    │   ├── BackupDamaged      meta unreadable, or data missing or of the wrong size
    │   ├── UnsupportedFormat  a backup format that this version cannot restore
    │   └── SourceChanged      a segment vanished from Milvus while it was copied
    ├── RestoreError           a restore cannot be planned or finished
    │   ├── TargetExists       a target collection is already there
    │   ├── SchemaMismatch     the created collection differs from the backup
    │   ├── ImportFailed       Milvus failed an import job
    │   ├── RowsMissing        fewer rows arrived than were backed up
    │   └── DrillFailed        a drill found that a backup does not restore as it should, or not in time
    ├── CheckFailed            a preflight found what a backup or restore would fail on
    ├── TakenOver              another run goes on with the backup or restore that this one was working on
    ├── WaitTimeout            the time allowed is over (also a TimeoutError)
    └── Cancelled              the run was asked to stop

Messages say what was wrong, with the value, and what to do about it. They never contain a secret.
"""

from __future__ import annotations


class MilvusBackupError(Exception):
    """Root of all errors of this package."""

    #: Whether trying the same call again can succeed without anybody changing anything.
    retryable: bool = False


class ConfigError(MilvusBackupError, ValueError):
    """An argument, a connection field or a key of backup.yaml has a value that cannot be used."""


class ServerError(MilvusBackupError):
    """Milvus refused or failed a request.

    :param message: what was asked and what the server said
    :param code: the server's error code, 0 where it gave none
    """

    retryable = True
    #: Whether the same request may succeed in a moment.
    passing: bool = False
    #: Whether Milvus may be working on the request all the same.
    unclear: bool = False

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ServerUnreachable(ServerError):
    """Nothing answered at the address of Milvus within the time allowed."""


class AuthError(ServerError):
    """Milvus does not accept the user, password or token, or the privilege is missing."""

    retryable = False


class UnsupportedServer(ServerError):
    """This version of Milvus lacks what the request needs."""

    retryable = False


class StorageError(MilvusBackupError):
    """Object storage refused or failed a request."""

    retryable = True
    #: Whether the same request may succeed in a moment.
    passing: bool = False


class StorageDenied(StorageError):
    """The key is wrong or a permission is missing."""

    retryable = False


class NotInStorage(StorageError):
    """The bucket or the object does not exist."""

    retryable = False


class ObjectChanged(StorageError):
    """A conditional write was refused: the object exists already, or is no longer the one that was read."""

    retryable = False


class BackupError(MilvusBackupError):
    """A backup cannot be made or read."""


class BackupExists(BackupError):
    """The backup name is taken."""


class BackupInUse(BackupError):
    """Another run is writing the backup; its lease says who."""

    retryable = True


class BackupNotFound(BackupError):
    """No complete backup has that name."""


class BackupDamaged(BackupError):
    """The meta files cannot be trusted, or data is missing or has the wrong size."""


class UnsupportedFormat(BackupError):
    """The backup has a format that this version cannot restore."""


class SourceChanged(BackupError):
    """A segment vanished from Milvus's storage while it was being copied."""

    retryable = True


class RestoreError(MilvusBackupError):
    """A restore cannot be planned or finished."""


class TargetExists(RestoreError):
    """A target collection is already there."""


class SchemaMismatch(RestoreError):
    """The collection in Milvus differs from the one in the backup."""


class ImportFailed(RestoreError):
    """Milvus failed an import job."""


class RowsMissing(RestoreError):
    """Fewer rows arrived than were backed up."""


class DrillFailed(RestoreError):
    """A drill has restored a backup, and what came of it is not what was asked for, or came too late."""


class CheckFailed(MilvusBackupError):
    """A preflight found what a backup or restore would fail on; ``retryable`` when all of that may pass by itself."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class TakenOver(MilvusBackupError):
    """Another run goes on with the backup or restore that this one was working on; this one has stopped."""

    retryable = True


class WaitTimeout(MilvusBackupError, TimeoutError):
    """The time allowed is over; the message says what is still running, and a retry goes on waiting for it."""

    retryable = True


class Cancelled(MilvusBackupError):
    """The run was asked to stop and stopped."""
