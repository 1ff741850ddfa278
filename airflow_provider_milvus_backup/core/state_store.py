"""Where a restore's state is kept: beside the backup, or in Milvus's bucket when the backup cannot be written to."""

from __future__ import annotations

from . import layout
from .backup import MAX_META_BYTES
from .errors import BackupNotFound, NotInStorage, StorageDenied
from .restore_state import RestoreState
from .store import ObjectStore


class StateStore:
    """Saves and loads the states of restores.

    :param backups: where backups are
    :param milvus_store: the bucket that Milvus reads
    """

    def __init__(self, backups: ObjectStore, milvus_store: ObjectStore) -> None:
        self.backups, self.milvus_store = backups, milvus_store

    def save(self, state: RestoreState, *, finished: bool = False) -> None:
        """Write the state; in Milvus's bucket nothing is left of a finished restore."""
        beside, staged = self._keys(state.backup_name, state.restore_id)
        try:
            self.backups.write(beside, state.to_json())
        except StorageDenied:
            if finished:
                self.milvus_store.delete([staged])
            else:
                self.milvus_store.write(staged, state.to_json())

    def load(self, backup_name: str, restore_id: str) -> RestoreState:
        """Return the state of a restore that was started earlier, maybe by another worker; raises BackupNotFound."""
        beside, staged = self._keys(backup_name, restore_id)
        for store, key in ((self.backups, beside), (self.milvus_store, staged)):
            try:
                return RestoreState.from_json(store.read(key, MAX_META_BYTES))
            except NotInStorage:
                continue
        raise BackupNotFound(
            f"no restore {restore_id!r} of backup {backup_name!r} is known in {self.backups.location} or {self.milvus_store.location}"
        )

    def _keys(self, backup_name: str, restore_id: str) -> tuple[str, str]:
        beside = layout.provider_key(self.backups.location.root_path, backup_name, "restores", f"{restore_id}.json")
        return beside, layout.staging_dir(restore_id) + "state.json"
