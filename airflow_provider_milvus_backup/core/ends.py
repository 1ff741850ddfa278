"""The two ends of a restore: what is connected, and how to report and stop."""

from __future__ import annotations

from dataclasses import dataclass, field

from .doors import Door, open_door
from .patience import Patience
from .report import Reporter
from .server import MilvusServer
from .settings import Settings
from .store import ObjectStore


@dataclass(slots=True)
class Ends:
    """Milvus, its bucket, and where backups are."""

    settings: Settings
    server: MilvusServer
    #: Where backups are.
    backups: ObjectStore
    #: The bucket that Milvus reads.
    milvus_store: ObjectStore
    reporter: Reporter
    patience: Patience
    _door: Door | None = field(default=None, init=False)

    @classmethod
    def open(cls, settings: Settings, reporter: Reporter | None = None, patience: Patience | None = None) -> Ends:
        """Return the ends for these settings; nothing is connected yet."""
        patience = patience or Patience()
        return cls(
            settings,
            MilvusServer(settings.milvus, patience),
            ObjectStore(settings.backup_storage, patience),
            ObjectStore(settings.milvus_storage, patience),
            reporter or Reporter(),
            patience,
        )

    def be(self, patience: Patience) -> None:
        """Let every request from here on end by this patience; :attr:`patience` stays that of the run."""
        self.server.patience = self.backups.patience = self.milvus_store.patience = patience

    @property
    def door(self) -> Door:
        """The way to Milvus's imports; asked for first, it finds out whether REST answers."""
        if self._door is None:
            self._door = open_door(self.server, self.reporter)
        return self._door

    @property
    def staged(self) -> bool:
        """Whether backups lie where Milvus cannot read them, so that their objects have to be staged in its bucket."""
        here, there = self.backups, self.milvus_store
        return (here.location.bucket, here.endpoint) != (there.location.bucket, there.endpoint)
