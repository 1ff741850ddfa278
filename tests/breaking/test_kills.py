"""A task's process is killed at any request, and the next try of the task finishes what it had begun.

The request at which it dies still happens, and nobody hears of it. Before the retry nothing half-made may look whole; after it all is as if
nobody had been killed, and nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.breaking.kill_scenarios import BACKUPS, BASE, REPLACING_BACKUPS, REPLACING_RESTORES, RESTORES, Scenario
from tests.breaking.kill_world import World, clean, prepare
from tests.breaking.processes import Children, Task
from tests.integration.clusters import VAULT, Cluster

#: Backups at once, restores at once (which mostly wait for Milvus), and children that wait for a task.
BACKUPS_AT_ONCE, RESTORES_AT_ONCE, AHEAD = 2, 5, 4


def each(table: Sequence[Scenario]) -> Any:
    """Return the mark that runs a test with each scenario."""
    return pytest.mark.parametrize("scenario", table, ids=str)


@pytest.fixture(scope="module")
def world(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[World]:
    """All scenarios whose tests were selected, several at a time."""
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    selected = [item.callspec.params["scenario"] for item in here]
    s3, milvus = cluster.s3, cluster.milvus
    keys = (s3.endpoint_url, s3.access_key, s3.secret_key)
    task = Task((milvus.host, milvus.port), keys, (milvus.bucket, milvus.root_path), (VAULT, BASE), "")
    with ExitStack() as stack:
        one = World(cluster, task, Children(len(selected), AHEAD))
        stack.callback(one.children.close)
        stack.callback(clean, one)
        prepare(one, selected)
        backups, restores = (stack.enter_context(ThreadPoolExecutor(count)) for count in (BACKUPS_AT_ONCE, RESTORES_AT_ONCE))
        for scenario in selected:
            one.futures[scenario.name] = (backups if "backup" in scenario.kind else restores).submit(one.play, scenario)
        yield one
        for pool in (backups, restores):
            pool.shutdown(cancel_futures=True)


@each(BACKUPS)
def test_a_backup_whose_process_dies_when(world: World, scenario: Scenario) -> None:
    """Before the retry it is not there or complete; after it, it is complete, and nothing else is there."""
    world.outcome(scenario)


@each(REPLACING_BACKUPS)
def test_a_backup_that_replaces_another_whose_process_dies_when(world: World, scenario: Scenario) -> None:
    """Before the retry the old backup is complete, or the new one; after it, it is the new one, and nothing of the old one is there."""
    world.outcome(scenario)


@each(RESTORES)
def test_a_restore_whose_process_dies_when(world: World, scenario: Scenario) -> None:
    """Before the retry the target is not there or complete; after it, every row is there once, and nothing else is left."""
    world.outcome(scenario)


@each(REPLACING_RESTORES)
def test_a_restore_that_replaces_a_collection_whose_process_dies_when(world: World, scenario: Scenario) -> None:
    """Until the new collection has the name, the old one is there with all its rows; in the end the alias points at the new one."""
    world.outcome(scenario)
