"""Garbage collection is paused from before the flush until after the commit, and goes on whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import Cancelled, ServerError, ServerUnreachable, UnsupportedFormat
from airflow_provider_milvus_backup.core.patience import Patience
from tests.contract import shapes
from tests.contract.refusals import unexpected

from .worlds import World

NAMES = [("default", "docs"), ("default", "more")]
VERSIONS = ["2.5.10", "2.6.20"]
#: Nothing listens there.
NOWHERE = "http://127.0.0.1:9"


def fill(world: World) -> None:
    for name in NAMES:
        world.model.create_collection(name, shapes.schema(name[1]))
        world.model.insert(name, [shapes.row(number) for number in range(4)])


def history(world: World) -> list[tuple[str, Any]]:
    """Every pause and resume, with what it was for."""
    return [(action, params.get("collection_id") or params.get("ticket")) for action, params in world.server.gc.history]


def paused(world: World) -> list[bool]:
    return [world.server.gc.paused(world.model.collection(name).id) for name in NAMES]


@pytest.mark.parametrize("mode", ["auto", "require"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_paused_before_the_flush_and_goes_on_after_the_commit(milvus: Callable[..., World], version: str, mode: str) -> None:
    world = milvus(version)
    fill(world)
    seen: list[list[bool]] = []
    world.at("Flush", lambda: seen.append(paused(world)))
    world.log.actions["committed s3://"] = lambda: seen.append(paused(world))
    world.backup(gc_pause=mode)
    assert seen == [[True, True], [True, True]]
    assert paused(world) == [False, False]


def test_before_2_6_8_one_pause_is_for_the_whole_cluster_and_one_resume_ends_it(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    fill(world)
    world.backup()
    assert world.server.gc.history == [("pause", {"pause_seconds": "3600"}), ("resume", {})]


def test_from_2_6_8_on_each_collection_has_a_ticket_that_ends_no_other_pause(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    ids = [world.model.collection(name).id for name in NAMES]
    world.server.gc.answer("pause", {"pause_seconds": "60", "collection_id": str(ids[0])})  # another tool's
    world.backup()
    asked = history(world)[1:]
    assert asked[:2] == [("pause", str(ids[0])), ("pause", str(ids[1]))]
    assert [action for action, _ in asked[2:]] == ["resume", "resume"]
    assert len({ticket for _, ticket in asked[2:]}) == 2
    assert paused(world) == [True, False]


@pytest.mark.parametrize("version", VERSIONS)
def test_with_off_nothing_is_sent(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    world.backup(gc_pause="off")
    assert world.server.gc.history == []
    assert not world.said("arbage collection")


@pytest.mark.parametrize("version", VERSIONS)
def test_it_goes_on_after_a_failure(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)

    def fail() -> None:
        raise unexpected("the proxy has had enough")

    world.at("GetPersistentSegmentInfo", fail)
    with pytest.raises(ServerError, match="the proxy has had enough"):
        world.backup()
    assert ("pause" in dict(history(world)), paused(world)) == (True, [False, False])


@pytest.mark.parametrize("version", VERSIONS)
def test_it_goes_on_after_a_kill(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    stop = threading.Event()
    world.log.actions["to copy:"] = stop.set
    with pytest.raises(Cancelled):
        world.backup(patience=Patience(stop, timeout=250))
    assert ("pause" in dict(history(world)), paused(world)) == (True, [False, False])


def test_it_goes_on_when_what_is_found_is_refused(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.0")
    fill(world)
    world.model.plant_v3(NAMES[1], [shapes.row(9)])
    with pytest.raises(UnsupportedFormat):
        world.backup()
    assert ("pause" in dict(history(world)), paused(world)) == (True, [False, False])


@pytest.mark.parametrize("version", VERSIONS)
def test_require_refuses_a_wrong_management_port_before_anything_is_flushed_or_written(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    world.address["management_endpoint"] = NOWHERE
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9 does not answer .*; set management_endpoint of the Milvus connection"):
        world.backup(gc_pause="require")
    assert (world.server.requests["Flush"], world.keys("backup")) == (0, [])


def test_require_says_why_a_management_port_that_is_reached_refuses(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    world.server.gc.broken = 500, "failed to pause garbage collection, node not ready"
    with pytest.raises(ServerError, match="cannot pause garbage collection: failed to pause garbage collection, node not ready"):
        world.backup(gc_pause="require")
    assert (world.server.requests["Flush"], world.keys("backup")) == (0, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_auto_warns_once_and_backs_up_all_the_same(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    world.address["management_endpoint"] = NOWHERE
    world.backup()
    assert len([line for line in world.log.lines if "garbage collection" in line]) == 1
    assert world.said("Milvus's garbage collection is not paused during this backup")
    assert {name: found.rows for name, found in world.checked().collections.items()} == dict.fromkeys(NAMES, 4)


def test_the_collection_that_is_planned_again_stays_paused(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    seen: list[list[bool]] = []

    def collect() -> None:
        world.model.compact(NAMES[0])
        world.model.collect_garbage(NAMES[0])

    world.log.actions["to copy:"] = collect
    world.log.actions["planned again"] = lambda: seen.append(paused(world))
    world.backup()
    assert seen == [[True, True]]
    assert paused(world) == [False, False]
