"""What a backup makes durable before it looks, and what is consistent with what afterwards."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable

import pytest
from pymilvus.grpc_gen import common_pb2

from airflow_provider_milvus_backup.core.errors import ConfigError, UnsupportedServer
from tests.contract import shapes
from tests.contract.refusals import rate_limited
from tests.contract.scenes import Clock
from tests.contract.state import L0

from .worlds import World

NAME, RESTORED = ("default", "docs"), ("default", "docs_back")
OTHER = ("prod", "docs")


def fill(world: World) -> None:
    world.model.create_collection(NAME, shapes.schema("docs"))
    world.model.insert(NAME, [shapes.row(number) for number in range(4)])


# ---- one by one ------------------------------------------------------------------------------------------------------------------------


def test_the_rate_limit_of_flushes_is_waited_out(milvus: Callable[..., World]) -> None:
    clock = Clock()
    world = milvus("2.5.10", flush_interval=1.0, monotonic=clock)
    fill(world)
    world.backup("first")
    world.model.insert(NAME, [shapes.row(9)])
    flushes = world.server.requests["Flush"]
    world.at("Flush", lambda: None, clock.tick)
    world.backup("second")
    assert world.server.requests["Flush"] == flushes + 2
    assert world.checked("second").collections[NAME].rows == 5


def test_a_flush_that_is_refused_again_and_again_is_asked_for_with_growing_pauses(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    asked: list[float] = []

    def refuse() -> None:
        asked.append(time.monotonic())
        raise rate_limited(0.1)

    world.at("Flush", refuse, refuse, refuse, lambda: asked.append(time.monotonic()))
    world.backup()
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert [pause > least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20"])
def test_deletes_alone_are_waited_for_by_the_timestamp_of_the_flush(milvus: Callable[..., World], version: str) -> None:
    clock = Clock()
    world = milvus(version, monotonic=clock)
    fill(world)
    world.model.flush(NAME)
    world.model.delete(NAME, [2])
    world.model.flush_seconds = 1.0
    world.at("GetFlushState", lambda: None, clock.tick)
    world.backup()
    assert not any(request.segmentIDs for request in world.server.recorder.of("GetFlushState"))
    assert world.server.requests["GetFlushState"] > 1
    (l0,) = [segment for segment in world.model.listed(NAME) if segment.level == L0]
    assert world.checked().collections[NAME].l0_segments[l0.id].delta_logs == tuple(l0.delta_logs)
    world.model.flush_seconds = world.model.phase_seconds = 0.0
    world.restore(suffix="_back")
    assert world.model.rows(RESTORED)["_default"].keys() == {0, 1, 3}


def test_each_collection_is_flushed_by_a_request_of_its_own(milvus: Callable[..., World]) -> None:
    # Of several in one request newer servers keep the checkpoints of the last one alone.
    world = milvus("2.6.20")
    for name in ("a", "b", "c"):
        world.model.create_collection(("default", name), shapes.schema(name), shards=2)
        world.model.insert(("default", name), [shapes.row(number) for number in range(4)])
    summary = world.backup()
    assert [list(request.collection_names) for request in world.server.recorder.of("Flush")] == [["a"], ["b"], ["c"]]
    for name in ("a", "b", "c"):
        raw = world.checked().collections["default", name].raw
        assert raw["channel_checkpoints"].keys() == set(world.model.collection(("default", name)).vchannels)
        assert raw["backup_timestamp"] == world.model.collection(("default", name)).checkpoint
        assert raw["backup_physical_timestamp"] > 1_700_000_000
    assert (summary["strategy"], summary["consistency"]) == ("flush", "each collection by itself, as of its own flush")


def test_skip_flush_sends_none_and_says_so(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    world.model.flush(NAME)
    world.model.insert(NAME, [shapes.row(9)])
    assert world.backup(strategy="skip_flush")["strategy"] == "skip_flush"
    assert (world.server.requests["Flush"], world.server.requests["FlushAll"]) == (0, 0)
    raw = world.checked().collections[NAME].raw
    assert not raw.keys() & {"backup_timestamp", "backup_physical_timestamp", "channel_checkpoints"}
    with pytest.raises(ConfigError, match="cut_at_flush: backup 'nightly' does not say when"):
        world.restore(suffix="_back", cut_at_flush=True)


def test_meta_only_asks_for_no_segments_and_holds_none(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    assert world.backup(strategy="meta_only")["strategy"] == "meta_only"
    asked = [world.server.requests[name] for name in ("Flush", "GetPersistentSegmentInfo", "segments/describe")]
    assert asked == [0, 0, 0]
    assert world.checked().collections[NAME].rows == 0
    assert world.keys("backup/nightly/binlogs") == []


# ---- everything at once ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.6.20", "3.0.0"])
def test_flush_all_flushes_all_collections_at_one_point_in_time(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    world.model.create_database("prod")
    world.model.create_collection(OTHER, shapes.schema("docs"), shards=2)
    world.model.insert(OTHER, [shapes.row(number) for number in range(6)])

    def later() -> None:
        for name in (NAME, OTHER):
            world.model.insert(name, [shapes.row(9)])
            world.model.flush(name)

    world.at("GetPersistentSegmentInfo", later)
    summary = world.backup(strategy="flush_all")
    assert (summary["strategy"], summary["consistency"]) == ("flush_all", "all collections with each other, as of one flush")
    assert (world.server.requests["FlushAll"], world.server.requests["Flush"]) == (1, 0)
    raw = world.checked().raw
    messages = {channel: base64.b64decode(mark) for channel, mark in raw["flush_all_msgs_base64"].items()}
    ticks = {int(common_pb2.ImmutableMessage.FromString(content).properties["_tt"], 36) for content in messages.values()}
    assert len(ticks) == 1
    assert sorted(raw["physical_channel_names"]) == sorted(messages)
    assert raw["control_channel_name"] == "by-dev-rootcoord-dml_0_vcchan"
    (asked,) = {tuple(sorted(request.flush_all_tss.items())) for request in world.server.recorder.of("GetFlushAllState")}
    assert dict(asked) == dict.fromkeys(messages, *ticks)
    assert {name: found.rows for name, found in world.checked().collections.items()} == {NAME: 5, OTHER: 7}
    world.restore(suffix="_back", cut_at_flush=True)
    assert world.model.rows(RESTORED)["_default"].keys() == {0, 1, 2, 3}
    assert world.model.rows(("prod", "docs_back"))["_default"].keys() == {0, 1, 2, 3, 4, 5}


def test_flush_all_is_refused_before_anything_is_flushed_by_a_milvus_that_has_no_such_point(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    fill(world)
    with pytest.raises(UnsupportedServer, match=r"'flush_all' needs Milvus 2\.6\.11 or newer, .* v2\.6\.4; use strategy 'flush'"):
        world.backup(strategy="flush_all")
    assert (world.server.requests["FlushAll"], world.server.requests["Flush"]) == (0, 0)
    assert world.keys("backup") == []


def test_a_collection_that_is_planned_again_after_flush_all_is_flushed_by_itself_with_a_warning(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    other = ("default", "other")
    world.model.create_collection(other, shapes.schema("other"))
    world.model.insert(other, [shapes.row(number) for number in range(4)])

    def collect() -> None:
        world.model.insert(NAME, [shapes.row(9)])
        world.model.upsert(NAME, [{"id": 1, "v": [9.0, 9.0]}])
        world.model.flush(NAME)
        world.model.compact_l0(NAME)
        world.model.compact(NAME)
        world.model.collect_garbage(NAME)

    world.log.actions["to copy:"] = collect
    summary = world.backup(strategy="flush_all")
    assert (summary["strategy"], world.server.requests["FlushAll"]) == ("flush_all", 1)
    assert [list(request.collection_names) for request in world.server.recorder.of("Flush")] == [["docs"]]
    assert world.said("default.docs is flushed again, so it is some moments newer than the other collections")
    world.restore(suffix="_back", cut_at_flush=True)
    assert world.model.rows(RESTORED) == world.model.rows(NAME)
    assert world.model.rows(("default", "other_back")) == world.model.rows(other)
    stamps = {raw["collection_name"]: raw.get("backup_timestamp", 0) for raw in world.full_meta()["collection_backups"]}
    assert stamps == {"docs": world.model.collection(NAME).checkpoint, "other": 0}
