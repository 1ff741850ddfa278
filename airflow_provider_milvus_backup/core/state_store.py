"""Where a restore's state is kept: beside the backup, or in Milvus's bucket when the backup cannot be written to.

Every write is conditional on what was read before. Of two processes that both go on with one restore, the older one is refused at its next
write, which is how it learns that it is no longer the one.
"""

from __future__ import annotations

from typing import Protocol

from . import layout
from .errors import BackupNotFound, NotInStorage, ObjectChanged, StorageDenied, TakenOver
from .names import check_backup_name, check_restore_id
from .reader import MAX_META_BYTES
from .restore_state import RestoreState
from .store import ObjectStore

#: Airflow warns of values in its state store that are larger than 65,535 bytes; those are kept in the bucket alone.
MAX_MIRRORED = 60_000
_IN_MILVUS_BUCKET = "in Milvus's bucket"


class Mirror(Protocol):
    """A further place for the state, which the caller brings along: Airflow's ``task_state_store`` for example."""

    def get(self) -> str | None:
        """Return what was set last, None when nothing was."""

    def set(self, content: str) -> None:
        """Keep the content."""


class StateStore:
    """Saves and loads the state of one restore.

    :param backups: where backups are
    :param milvus_store: the bucket that Milvus reads
    :param mirror: a further place; the only one where neither bucket can be written to
    """

    def __init__(self, backups: ObjectStore, milvus_store: ObjectStore, mirror: Mirror | None = None) -> None:
        self.backups, self.milvus_store, self.mirror = backups, milvus_store, mirror

    def save(self, state: RestoreState) -> None:
        """Write the state; in Milvus's bucket nothing is left of a finished restore.

        :raises TakenOver: another process has gone on with this restore
        :raises StorageDenied: no place can be written to
        """
        content = state.to_json()
        mirrored = self.mirror is not None and len(content) <= MAX_MIRRORED
        places = self._places(state.backup_name, state.restore_id)
        for place in [state.place] if state.place in places else list(places):
            try:
                self._write(*places[place], content, state)
                state.place = place
                break
            except StorageDenied:
                continue
        else:
            if not mirrored:
                raise StorageDenied(
                    f"the state of restore {state.restore_id!r} can be written neither to {self.backups.location} nor to "
                    f"{self.milvus_store.location}; without it a retry could not know what was imported. Allow one of the keys to write"
                )
        if self.mirror and mirrored:
            self.mirror.set(content.decode())
        if state.summary and state.place == _IN_MILVUS_BUCKET:
            self.milvus_store.delete([places[_IN_MILVUS_BUCKET][1]])

    def _write(self, store: ObjectStore, key: str, content: bytes, state: RestoreState) -> None:
        try:
            state.etag = store.swap(key, content, state.etag) if state.etag else store.create(key, content)
        except (ObjectChanged, NotInStorage):
            raise TakenOver(
                f"restore {state.restore_id} of backup {state.backup_name!r} is continued by another process; this one stops and leaves "
                "everything to it"
            ) from None

    def forget(self, state: RestoreState) -> None:
        """Remove the state of a restore that has done nothing."""
        if place := self._places(state.backup_name, state.restore_id).get(state.place):
            place[0].delete([place[1]])
        state.place = state.etag = ""

    def find(self, backup_name: str, restore_id: str) -> RestoreState | None:
        """Return the state of a restore that was started earlier, maybe by another worker; None when there is none."""
        check_backup_name(backup_name)
        check_restore_id(restore_id)
        for place, (store, key) in self._places(backup_name, restore_id).items():
            try:
                content, etag = store.read_version(key, MAX_META_BYTES)
            except NotInStorage:
                continue
            state = RestoreState.from_json(content)
            state.place, state.etag = place, etag
            return state
        if self.mirror and (kept := self.mirror.get()):
            state = RestoreState.from_json(kept.encode())
            return state if (state.backup_name, state.restore_id) == (backup_name, restore_id) else None
        return None

    def load(self, backup_name: str, restore_id: str) -> RestoreState:
        """Return the state; raises BackupNotFound when there is none."""
        if state := self.find(backup_name, restore_id):
            return state
        raise BackupNotFound(
            f"no restore {restore_id!r} of backup {backup_name!r} is known in {self.backups.location} or {self.milvus_store.location}"
        )

    def _places(self, backup_name: str, restore_id: str) -> dict[str, tuple[ObjectStore, str]]:
        beside = layout.provider_key(self.backups.location.root_path, backup_name, "restores", f"{restore_id}.json")
        return {
            "beside the backup": (self.backups, beside),
            _IN_MILVUS_BUCKET: (self.milvus_store, layout.staging_dir(restore_id) + "state.json"),
        }
