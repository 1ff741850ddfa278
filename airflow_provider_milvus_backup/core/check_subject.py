"""What a preflight looks at: both ends, what is asked of them, and what earlier lines have found out for later ones."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import layout
from .checking import FAIL, SKIP, Line
from .ends import Ends
from .names import CollectionName
from .patience import Patience
from .report import Reporter
from .rpc import messages
from .server import MilvusServer
from .settings import Settings
from .store import ObjectStore, StoredObject

#: The directory of all probes below the backup root. No backup name has a hyphen, so neither tool takes it for a backup.
PROBES = "airflow-check-probes"
#: Collections that are looked at closely at most.
CLOSELY = 20


class ProbedServer(MilvusServer):
    """Asks what only a preflight wants to know; changes nothing."""

    def timestamp(self) -> int:
        """Return the hybrid timestamp of this moment: milliseconds shifted by 18 bits."""
        return int(self._call("AllocTimestamp", messages().AllocTimestampRequest(), "ask for the time").timestamp)

    def ask(self, rpc: str, request: Any, doing: str) -> None:
        """Send a request that can do nothing, to see whether it would be let in; raises what it is answered."""
        self._call(rpc, request, doing, self.address.database, once=True)


@dataclass(slots=True)
class Subject:
    """What the lines of one preflight share."""

    ends: Ends
    server: ProbedServer
    patterns: Sequence[str]
    #: Names of lines that are left out by wish.
    left_out: frozenset[str] = frozenset()
    #: The lines so far.
    lines: list[Line] = field(default_factory=list)
    #: The collections that were selected, without those that a restore is building.
    selected: list[CollectionName] = field(default_factory=list)
    #: The smallest object of a sealed segment, in Milvus's bucket.
    proof: StoredObject | None = None
    #: Bytes a second that the backup storage took and gave.
    rates: list[float] = field(default_factory=list)
    #: Different for every run, so that two at once keep to their own probes.
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def open(cls, settings: Settings, reporter: Reporter, patience: Patience, patterns: Sequence[str]) -> Subject:
        """Return the subject for these settings; nothing is connected yet."""
        server = ProbedServer(settings.milvus, patience)
        backups, milvus = ObjectStore(settings.backup_storage, patience), ObjectStore(settings.milvus_storage, patience)
        return cls(Ends(settings, server, backups, milvus, reporter, patience), server, patterns)

    def failed(self, name: str) -> bool:
        """Return whether an earlier line says that there is no use in asking once more."""
        return any(line.name == name and line.status in (FAIL, SKIP) for line in self.lines) and name not in self.left_out

    @property
    def shared(self) -> bool:
        """Whether backups lie in Milvus's own bucket."""
        return not self.ends.staged

    def probe(self, name: str) -> str:
        """Return the key of a probe of this run in the backup storage."""
        return layout.join(probes_dir(self.ends.backups.location.root_path), self.run, name)

    def staged_probe(self, name: str) -> str:
        """Return the key of a probe of this run where restores stage objects."""
        return layout.join(STAGED_PROBES, self.run, name)


def probes_dir(root: str) -> str:
    """Return the prefix of all probes in the backup storage, with a trailing slash."""
    return layout.join(root, PROBES) + "/"


#: The prefix of all probes in Milvus's bucket. Only whoever restores under this very id would look into it.
STAGED_PROBES = layout.staging_dir(PROBES)
