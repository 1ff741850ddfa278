"""A process that deletes backups, or lets a policy delete them, is killed at any request: what is listed is whole, and a retry ends it.

The request at which it dies still happens, and nobody hears of it. What is held, read by a restore, or next to a backup is never touched.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import BackupInUse
from demo import servers
from demo.servers import LOOPBACK
from tests.breaking.kill_scenarios import LEASE
from tests.breaking.processes import Children, Point, Task, run_and_kill
from tests.breaking.removal_world import Vault
from tests.integration.clusters import VAULT, Lines

#: Objects that are deleted with one request: the data of a backup is several.
PAGE = 4
AT_ONCE, AHEAD = 2, 3
POLICY = {"keep_last": 1}


@dataclass(frozen=True)
class Scenario:
    """Where a process dies, and which backups are no longer listed then."""

    #: The last thing that happens.
    promise: str
    verb: str
    point: Point
    unlisted: tuple[str, ...] = ()
    #: What a retry of retention removes, in its order.
    removed: tuple[str, ...] = ()
    ours: bool = True

    def __str__(self) -> str:
        return self.promise.replace(" ", "-")


SCENARIOS = [
    *(
        Scenario(f"delete: {promise}", "delete", point, ("old_1",) if gone else (), ours=ours)
        for promise, point, gone, ours in (
            ("its lease is taken", Point("put-if", LEASE), False, True),
            ("the mark is read once more", Point("get", "/backup_meta.json$", after=f"put-if .*{LEASE}"), False, True),
            ("the mark is gone", Point("delete"), True, True),
            ("one page of the data is gone", Point("delete", number=2), True, True),
            ("half of the data of an official backup is gone", Point("delete", number=3), True, False),
            ("all data is gone", Point("list", after="delete", number=5), True, True),
            ("the meta is gone", Point("list", after="delete", number=6), True, True),
            ("the lease is given up", Point("put-if", LEASE, after="delete"), True, True),
        )
    ),
    *(
        Scenario(f"retention: {promise}", "retention", point, gone, removed)
        for promise, point, gone, removed in (
            ("the lease of the oldest is taken", Point("put-if", f"old_1{LEASE}"), (), ("old_1", "old_2")),
            ("the mark of the oldest is gone", Point("delete"), ("old_1",), ("old_2", "old_1")),
            ("the oldest is gone and the lease of the next one taken", Point("put-if", f"old_2{LEASE}"), ("old_1",), ("old_2",)),
            ("the next one has lost its data", Point("get", f"old_2{LEASE}", number=3), ("old_1", "old_2"), ("old_2",)),
        )
    ),
]


class World:
    """A root for each scenario, played several at a time."""

    def __init__(self, s3: servers.S3Server, children: Children) -> None:
        self.s3, self.children = s3, children
        self.futures: dict[str, Future[None]] = {}

    def play(self, scenario: Scenario) -> None:
        vault = Vault(self.s3, f"removals/{scenario}".replace(":", ""))
        victims = ["old_1"] if scenario.verb == "delete" else ["old_1", "old_2"]
        for number, name in enumerate(("old_1", "old_2", "held", "read", "new")):
            vault.make(name, days=10 - number, ours=scenario.ours or name == "new")
        vault.hold("held")
        vault.read("read")
        notes = "old_1/notes/why.txt"
        vault.stray(notes, "old_1.txt", "old_10/binlogs.txt")
        before = vault.there()
        task = Task(
            (LOOPBACK, 1),
            (self.s3.endpoint_url, self.s3.access_key, self.s3.secret_key),
            (VAULT, "files"),
            (VAULT, vault.root),
            "old_1",
            POLICY if scenario.verb == "retention" else {},
            verb=scenario.verb,
            page=PAGE,
        )
        with self.children.one() as child:
            code, requests = run_and_kill(task, child, scenario.point)
            told = "\n".join(map(str, requests))
            assert code == -signal.SIGKILL, f"{scenario.point} never came, but\n{told}\n{child.said()}"
        everybody = {"old_1", "old_2", "held", "read", "new"}
        assert set(vault.listed()) == everybody - set(scenario.unlisted)
        for name in scenario.unlisted:
            vault.check_unlisted(name)
        # Nothing but what is no longer listed has lost anything.
        left = vault.there()
        assert vault.but(before, *scenario.unlisted).items() <= left.items()
        leases = vault.leases()
        assert left.keys() - before.keys() == leases.keys() <= {f"{vault.root}/{name}/provider/lease.json" for name in victims}
        self.refuse_others(vault, task)
        if scenario.verb == "retention" and any(key.split("/")[-3] in vault.listed() for key in leases):
            vault.let_a_minute_pass()  # until then a policy does not touch it; what is no longer listed need not wait
        log = Lines()
        result = task.retried().run(log)
        assert vault.there() == vault.but(before, *victims, kept=[notes]), "\n".join(log.lines)
        self.check_told(scenario, result)

    @staticmethod
    def refuse_others(vault: Vault, task: Task) -> None:
        """Whoever is not the next try of that task instance waits until its lease has run out."""
        for key, held in vault.leases().items():
            if not held.seconds:  # given up
                continue
            vault.store.write(key, held.to_json())  # as it was: on a busy machine it may have run out by now
            name, before = key.split("/")[-3], vault.there()
            with pytest.raises(BackupInUse, match=f"dag/run/task/-1, try 1 .* is about to delete backup '{name}'"):
                replace(task, verb="delete", name=name, owner=("dag/somebody/else/-1", 0, 1)).run(Lines())
            assert vault.there() == before

    @staticmethod
    def check_told(scenario: Scenario, result: dict[str, Any]) -> None:
        if scenario.verb == "delete":
            assert result["state"] == ("unfinished" if scenario.unlisted else "complete")
        else:
            assert tuple(result["removed"]) == scenario.removed
            assert result["kept"] == 3
            assert any("on hold" in line for line in result["table"])


@pytest.fixture(scope="module")
def world(s3: servers.S3Server, request: pytest.FixtureRequest) -> Iterator[World]:
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    selected = [item.callspec.params["scenario"] for item in here]
    with ExitStack() as stack:
        children = Children(len(selected), AHEAD)
        stack.callback(children.close)
        one = World(s3, children)
        stack.callback(lambda: Vault(s3, "removals").store.delete([*Vault(s3, "removals").there()]))
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        one.futures = {str(scenario): pool.submit(one.play, scenario) for scenario in selected}
        yield one
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_removal_whose_process_dies_when(world: World, scenario: Scenario) -> None:
    """Before the retry every backup that is listed is whole; after it, what was to go is gone, and everything else is as it was."""
    world.futures[str(scenario)].result()
