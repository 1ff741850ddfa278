"""Whatever a network or a busy server does to single requests: a backup or a restore is complete, or it is not there.

Random faults play over whole backups and restores, with the retries that Airflow would do; exact ones show what each lost answer and each
refusal leads to, counted by the requests that reach the servers.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import rpc, store
from airflow_provider_milvus_backup.core.errors import ConfigError, MilvusBackupError, ServerUnreachable, StorageDenied, StorageError
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo.servers import LOOPBACK
from tests.breaking.checker import Outcome, Proxies, Rig, play
from tests.breaking.faults import Fault, Script
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, User, listing, location, moved

SEEDS = [0, 1, 2, 3, 4, 5, 6, 7]
#: Seeds and scenarios at once: a restore mostly waits for Milvus.
AT_ONCE = 3


@dataclass(frozen=True)
class Lost:
    """A backup or a restore of which the answer to exactly one request, or to some of one kind, goes wrong."""

    promise: str
    #: ``backup`` or ``restore``.
    kind: str
    operation: str
    #: What the path of the request matches; for Milvus, which has no paths, nothing.
    path: str = ""
    fault: Fault = Fault.LOST
    #: Which of those requests.
    numbers: tuple[int, ...] = (1,)
    #: The operation that comes before it: the staged objects are removed just before a restore is written down as finished.
    after: str = ""
    #: How many requests there are of each operation, of both servers; what is not named is not counted.
    requests: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.promise.replace(" ", "-")


class First:
    """A schedule: one fault for the first request of an operation after one of another."""

    def __init__(self, operation: str, after: str, fault: Fault) -> None:
        self.operation, self.after, self.fault = operation, after, fault
        self.injected: list[tuple[str, int, Fault]] = []
        self._armed = False
        self._lock = threading.Lock()

    def __call__(self, operation: str, number: int) -> Fault | None:
        with self._lock:
            self._armed = self._armed or operation == self.after
            if not self._armed or operation != self.operation or self.injected:
                return None
            self.injected.append((operation, number, self.fault))
            return self.fault

    def __str__(self) -> str:
        return f"the first {self.operation} after {self.after}: {self.fault.name}, injected {self.injected}"


class Matching:
    """One fault for some of the requests of an operation whose path matches, whatever else is asked, such as renewals of a lease."""

    def __init__(self, operation: str, path: str, numbers: tuple[int, ...], fault: Fault) -> None:
        self.operation, self.path, self.numbers, self.fault = operation, path, numbers, fault
        self.injected: list[tuple[str, int, Fault]] = []
        self._seen = 0
        self._lock = threading.Lock()

    def __call__(self, operation: str, path: str) -> Fault | None:
        with self._lock:
            if operation != self.operation or not re.search(self.path, path):
                return None
            self._seen += 1
            if self._seen not in self.numbers:
                return None
            self.injected.append((operation, self._seen, self.fault))
            return self.fault

    def __str__(self) -> str:
        return f"{self.numbers} of {self.operation} {self.path}: {self.fault.name}, injected {self.injected}"


LEASE, STATE, STAGING = "/provider/lease.json$", "/provider/restores/", "/restore-temp-[0-9a-f]+/lease.json$"
SCENARIOS = [
    Lost("the answer to taking a backup's lease is lost", "backup", "put-if", LEASE),
    Lost("the answer to the commit mark is lost", "backup", "put-if", "/backup_meta.json$"),
    Lost("the answer to the first copy is lost", "backup", "copy"),
    Lost("a backup's first lists are cut off", "backup", "list", "/", Fault.TRUNCATED, (1, 2, 3)),
    Lost("a restore's first lists are cut off", "restore", "list", "/", Fault.TRUNCATED, (1, 2, 3)),
    Lost("the answer to taking a restore's lease is lost", "restore", "put-if", STAGING),
    Lost("the answer to writing the state is lost", "restore", "put-if", STATE),
    Lost("the answer to the summary of a restore is lost", "restore", "put-if", after="delete"),
    Lost("the answer to a submitted job is lost", "restore", "Import", requests={"Import": 2}),
    Lost("the answers to all submitted jobs are lost", "restore", "Import", numbers=(1, 2), requests={"Import": 2}),
    Lost("Milvus is away when a job is submitted", "restore", "Import", fault=Fault.UNAVAILABLE, requests={"Import": 3}),
    Lost("Milvus limits the rate of jobs", "restore", "Import", fault=Fault.RATE_LIMIT, numbers=(1, 2), requests={"Import": 4}),
    Lost("the answer to a renaming is lost", "restore", "RenameCollection", requests={"Import": 2}),
    Lost("the answer to a new database is lost", "restore", "CreateDatabase", requests={"Import": 2}),
    Lost("the answer to a new collection is lost", "restore", "CreateCollection", requests={"Import": 2}),
    Lost("the answer to a new partition is lost", "restore", "CreatePartition", requests={"CreatePartition": 2, "Import": 2}),
    Lost("the answer to a new index is lost", "restore", "CreateIndex", requests={"CreateIndex": 2, "Import": 2}),
    Lost(
        "Milvus is away for five looks at a job",
        "restore",
        "GetImportState",
        fault=Fault.UNAVAILABLE,
        numbers=(1, 2, 3, 4, 5),
        requests={"Import": 2},
    ),
]


@dataclass
class World:
    """The collection that all share, and what became of each seed and scenario."""

    rig: Rig
    futures: dict[Any, Future[Any]] = field(default_factory=dict)

    def undisturbed(self) -> None:
        """Back up and restore without any fault."""
        with ExitStack() as stack:
            proxies = self.rig.proxies(stack, bucket=VAULT)
            assert self.rig.backup(proxies, "undisturbed").errors == []
            self.restore(proxies, "undisturbed", "undisturbed")

    def restore(self, proxies: Proxies, name: str, unique: str) -> dict[str, Any]:
        """Restore into a database of its own, in one try, compare it, and drop it."""
        target = CollectionName(f"lost_{unique}", self.rig.shape.name.collection)
        tried = self.rig.restore(proxies, name, unique, target, rename={str(self.rig.shape.name): str(target)}, load="always", tries=1)
        assert tried.errors == []
        self.rig.drop(target)
        return tried.summary

    def play(self, scenario: Lost) -> None:
        """Run one scenario: the first try succeeds, and the servers get no request too many."""
        operation, numbers, fault, unique = scenario.operation, scenario.numbers, scenario.fault, f"s{SCENARIOS.index(scenario)}"
        schedule = First(operation, scenario.after, fault) if scenario.after else None
        by_path = Matching(operation, scenario.path, numbers, fault) if operation[0].islower() and not schedule else None
        script = Script({(operation, number): fault for number in numbers}) if operation[0].isupper() else None
        with ExitStack() as stack:
            proxies = self.rig.proxies(stack, schedule, script, bucket=VAULT)
            proxies.s3.by_path = by_path
            if scenario.kind == "backup":
                assert self.rig.backup(proxies, f"lost_{unique}", tries=1).errors == []
            else:
                self.restore(proxies, "undisturbed", unique)
            requests = proxies.s3.requests + proxies.milvus.requests
        (played,) = (one for one in (schedule, by_path, script) if one)
        assert len(played.injected) == len(numbers), played
        assert {operation: requests[operation] for operation in scenario.requests} == scenario.requests, (requests, played)


@pytest.fixture(scope="module")
def world(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[World]:
    """All seeds and scenarios whose tests were selected, some at a time."""
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    one = World(Rig(cluster))
    one.undisturbed()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for item in here:
            for seed in [item.callspec.params["seed"]] if "seed" in item.callspec.params else []:
                one.futures[seed] = pool.submit(play, one.rig, seed)
            for scenario in [item.callspec.params["scenario"]] if "scenario" in item.callspec.params else []:
                one.futures[scenario] = pool.submit(one.play, scenario)
        yield one
        pool.shutdown(cancel_futures=True)
    cluster.drop(one.rig.shape.name)


@pytest.mark.parametrize("seed", SEEDS)
def test_under_random_faults_a_backup_and_a_restore_are_complete_or_not_there(world: World, seed: int) -> None:
    outcome: Outcome = world.futures[seed].result()
    print(outcome)  # noqa: T201
    assert not outcome.violation, str(outcome)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_one_try_is_enough_when(world: World, scenario: Lost) -> None:
    world.futures[scenario].result()


# ---- what does not pass ------------------------------------------------------------------------------------------------------------


def test_a_refused_key_is_not_tried_twice_by_a_backup(world: World) -> None:
    """The key is the backup's; nothing of it is there afterwards."""
    rig = world.rig
    wrong = location(rig.cluster.s3, VAULT, user=User("stranger", ()))
    with ExitStack() as stack:
        proxies = rig.proxies(stack, bucket=VAULT)
        wrong = moved(wrong, proxies.s3.endpoint_url)
        with pytest.raises(StorageDenied):
            rig.backup_once(replace(proxies, settings=replace(proxies.settings, backup_storage=wrong)), "denied")
        assert sum(proxies.s3.requests.values()) == 1, proxies.s3.requests
        assert not proxies.milvus.requests.keys() & {"Flush", "Import"}
    assert listing(rig.cluster.s3, VAULT, "backup/denied/") == {}


def test_a_refused_key_is_not_tried_twice_by_any_request_to_a_store(world: World) -> None:
    wrong = location(world.rig.cluster.s3, A_BUCKET, user=User("stranger", ()))
    actions = {
        "list": lambda store: list(store.objects("backup/")),
        "get": lambda store: store.read("backup/x"),
        "put": lambda store: store.write("backup/x", b""),
        "put-if": lambda store: store.create("backup/x", b""),
        "delete": lambda store: store.delete(["backup/x"]),
        "head": lambda store: store.head("backup/x"),
    }
    with ExitStack() as stack:
        proxies = world.rig.proxies(stack)
        for operation, action in actions.items():
            with pytest.raises(StorageDenied):
                action(ObjectStore(moved(wrong, proxies.s3.endpoint_url)))
            assert proxies.s3.requests[operation] == 1, (operation, proxies.s3.requests)


def test_what_milvus_refuses_for_good_is_asked_for_once(world: World) -> None:
    rig = world.rig
    with ExitStack() as stack:
        proxies = rig.proxies(stack, bucket=VAULT)
        with pytest.raises(ConfigError, match="does not exist"):
            rig.backup_once(proxies, "refused", collections="nobody_made_this")
        with pytest.raises(MilvusBackupError, match="already exists"):
            rig.restore_once(proxies, "undisturbed", "refused")
        assert not proxies.milvus.requests.keys() & {"Flush", "Import", "CreateCollection", "RenameCollection", "DropCollection"}
        assert max(proxies.milvus.requests.values()) == 2, proxies.milvus.requests  # one each by the backup and the restore
        assert proxies.s3.requests["put"] == 0
    assert listing(rig.cluster.s3, VAULT, "backup/refused/") == {}


def test_servers_that_never_answered_are_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is wrong is told at once; only what has answered before is worth the wait, which would be longer than the test."""
    rig = world.rig
    for one in (rpc, store):
        monkeypatch.setattr(one, "BUDGET", 3600.0)
    with ExitStack() as stack:
        proxies = rig.proxies(stack, bucket=VAULT)
        with socket.create_server((LOOPBACK, 0)) as nobody:
            port = nobody.getsockname()[1]
        nowhere = replace(proxies.settings, milvus=replace(proxies.settings.milvus, port=port))
        with pytest.raises(ServerUnreachable, match="did not answer within"):
            rig.backup_once(replace(proxies, settings=nowhere), "away")
        proxies.s3.down = True
        with pytest.raises(StorageError):
            rig.backup_once(proxies, "away")
    assert listing(rig.cluster.s3, VAULT, "backup/away/") == {}
