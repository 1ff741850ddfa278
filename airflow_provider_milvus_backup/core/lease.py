"""Leases: who works on a backup or restore right now.

A lease is an object in the bucket, created and renewed by conditional writes, so that of several writers one wins. It says for how many
seconds after its last renewal it holds; how long ago that was is counted by the store's own clock, never by a worker's.

====================================================  ============================================================
``<backup root>/<name>/provider/lease.json``          somebody writes this backup
``<backup root>/<name>/provider/leases/<id>.json``    a restore reads this backup
``restore-temp-<id>/lease.json`` in Milvus's bucket   a restore builds collections and stages objects under this id
====================================================  ============================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from . import layout
from .errors import BackupDamaged, BackupInUse, MilvusBackupError, NotInStorage, ObjectChanged, TakenOver
from .jsonreader import Node
from .patience import Patience
from .report import Reporter, duration
from .store import ObjectStore

LEASE_VERSION = 1
#: Seconds a lease holds after its last renewal, and seconds between renewals.
LIFE, RENEWAL = 60.0, 15.0
MAX_LEASE_BYTES = 64 * 1024
#: The name of whoever holds a lease that cannot be read.
UNKNOWN = "somebody whose lease cannot be read"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who works: a task instance, or a program that gave no name.

    :param identity: the same for every try of a task instance; empty for a program that gave no name
    :param round: how often the task instance was cleared
    :param attempt: the number of the try
    """

    identity: str = ""
    round: int = 0
    attempt: int = 1

    def __str__(self) -> str:
        if not self.identity:
            return "a program without a name"
        return f"{self.identity}, try {self.attempt}" if self.attempt else self.identity


@dataclass(frozen=True, slots=True)
class Holding:
    """What a lease object says."""

    owner: Owner
    doing: str
    seconds: float = LIFE
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    #: Different for every process that takes the lease.
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"{self.owner} (process {self.pid} on {self.host})"

    def to_json(self) -> bytes:
        """Return the lease object's content."""
        return json.dumps({"version": LEASE_VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Holding:
        """Return what :meth:`to_json` wrote; raises BackupDamaged for anything else."""
        root = Node.parse(content, "the lease")
        if root.integer("version") != LEASE_VERSION:
            raise root.wrong("version", str(LEASE_VERSION))
        owner = Node(root.value.get("owner"), "the lease's owner")
        return cls(
            Owner(owner.string("identity"), owner.integer("round"), owner.integer("attempt")),
            root.string("doing"),
            root.number("seconds"),
            root.string("host"),
            root.integer("pid"),
            root.string("token"),
        )

    @classmethod
    def of(cls, content: bytes) -> Holding:
        """Return who holds a lease; one that cannot be read is somebody's, and ends as any other does when nobody renews it.

        It must neither keep a backup from everybody for ever nor be ignored, for a later version may write leases in another form. For how
        long that one is handed over is believed, if it still says so.
        """
        try:
            return cls.from_json(content)
        except BackupDamaged:
            seconds = LIFE
            with contextlib.suppress(BackupDamaged):
                seconds = max(LIFE, Node.parse(content, "the lease").number("seconds"))
            return cls(Owner(UNKNOWN, attempt=0), "do something that cannot be read either", seconds, "an unknown host", 0)


def may_take_over(held: Holding, age: float, owner: Owner) -> bool:
    """Return whether ``owner`` may take a lease that somebody else renewed ``age`` seconds ago.

    That is when it has expired, or when it belongs to the same task instance: Airflow starts a further try only when it has given up the
    one before, and one that is still alive finds out at its next renewal.
    """
    same = bool(owner.identity) and held.owner.identity == owner.identity
    return age >= held.seconds or (same and (held.owner.round, held.owner.attempt) <= (owner.round, owner.attempt))


class Lease:
    """One lease. Take it, keep it alive while working, and give it up or hand it over at the end."""

    def __init__(self, store: ObjectStore, key: str, owner: Owner, doing: str, reporter: Reporter) -> None:
        self.store, self.key, self.reporter = store, key, reporter
        self.holding = Holding(owner, doing)
        self._etag = ""
        self._renewed = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Become the owner.

        :raises BackupInUse: somebody else is, and alive
        """
        self._renewed = time.monotonic()
        for _ in range(5):  # each time somebody else was faster
            with contextlib.suppress(ObjectChanged):
                self._etag = self.store.create(self.key, self.holding.to_json())
                break
            with contextlib.suppress(ObjectChanged, NotInStorage):
                self._take_over()
                break
        else:
            raise BackupInUse(f"several runs want to {self.holding.doing} at once ({self.key!r} in {self.store.location}); try again")
        if self.store.conditional is False:
            self.reporter.warn(
                f"{self.store.location} does not keep to conditional writes (If-None-Match): two runs that begin in the same moment "
                "are not kept apart; never run two at once for one backup name"
            )

    def _take_over(self) -> None:
        content, etag = self.store.read_version(self.key, MAX_LEASE_BYTES)
        held, age = Holding.of(content), self.store.age(self.key)
        if not may_take_over(held, age, self.holding.owner):
            raise BackupInUse(
                f"cannot {self.holding.doing}: {held} is about to {held.doing}; its last sign of life was {duration(max(0.0, age))} ago. "
                f"Wait until it is done; if that process is dead, its lease ends in {duration(max(0.0, held.seconds - age))}"
            )
        self._etag = self.store.swap(self.key, self.holding.to_json(), etag)
        waiting, own = not 0 < held.seconds <= LIFE, (held.host, held.pid) == (self.holding.host, self.holding.pid)
        if not waiting and not own:
            self.reporter.line(f"took over from {held}, whose last sign of life was {duration(max(0.0, age))} ago")

    def renew(self, seconds: float = LIFE) -> None:
        """Give a sign of life; the lease then holds for ``seconds``.

        :raises TakenOver: it is somebody else's by now
        """
        with self._lock:
            self.holding, now = replace(self.holding, seconds=seconds), time.monotonic()
            try:
                self._etag = self.store.swap(self.key, self.holding.to_json(), self._etag)
                self._renewed = now
            except (ObjectChanged, NotInStorage):
                raise TakenOver(f"another run has taken over to {self.holding.doing}; this one, {self.holding}, stops") from None

    def confirm(self) -> None:
        """Renew the lease if it should have been long ago: before what cannot be taken back, by a process that may have been asleep.

        :raises TakenOver: it is somebody else's by now
        """
        if time.monotonic() - self._renewed > 2 * RENEWAL:
            self.renew()

    @contextlib.contextmanager
    def kept(self, patience: Patience) -> Iterator[None]:
        """Renew the lease in a thread of its own; when it is lost, ``patience`` is over."""
        done = threading.Event()

        def renewing() -> None:
            while not done.wait(RENEWAL):
                try:
                    self.renew()
                except TakenOver as error:
                    patience.failure = error
                    return
                except MilvusBackupError as error:
                    # The store is away; what matters is whether the lease is still ours when it is back.
                    self.reporter.warn(f"the lease could not be renewed yet: {error}")

        thread = threading.Thread(target=renewing, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=2)

    def give_up(self) -> None:
        """Remove the lease if it is still ours; never raises, for it is the last thing a run does."""
        with contextlib.suppress(MilvusBackupError):
            self.renew(0)  # conditional, which a delete is not everywhere
            self.store.delete([self.key])

    def hand_over(self, seconds: float) -> None:
        """Leave the lease alive for whoever goes on within ``seconds``; never raises."""
        with contextlib.suppress(MilvusBackupError):
            self.renew(seconds)


def end_waiting(store: ObjectStore, key: str, *, remove: bool) -> None:
    """End a lease that was handed over and that nobody has taken up since; never raises.

    :param remove: remove the object as well, instead of leaving it as a proof that there was somebody
    """
    with contextlib.suppress(MilvusBackupError):
        content, etag = store.read_version(key, MAX_LEASE_BYTES)
        held = Holding.from_json(content)
        if held.seconds > LIFE:
            store.swap(key, replace(held, seconds=0.0).to_json(), etag)
            if remove:
                store.delete([key])


def holder(store: ObjectStore, key: str) -> Holding | None:
    """Return who holds a lease, None when nobody does any more; raises BackupDamaged when it cannot be read, which proves nothing."""
    try:
        held = Holding.from_json(store.read(key, MAX_LEASE_BYTES))
        return held if store.age(key) < held.seconds else None
    except NotInStorage:
        return None


def in_use(store: ObjectStore, root: str, name: str) -> list[Holding]:
    """Return who writes or restores a backup right now; nothing of it may be deleted meanwhile."""
    found = []
    for key in (layout.lease_key(root, name), *(item.key for item in store.objects(layout.provider_key(root, name, "leases")))):
        with contextlib.suppress(NotInStorage):  # given up meanwhile
            held = Holding.of(store.read(key, MAX_LEASE_BYTES))
            if store.age(key) < held.seconds:
                found.append(held)
    return found
