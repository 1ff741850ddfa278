"""``cut_at_flush``: rows that other writers flushed after the backup's own flush are left out, in the unit the version wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.plan import SKIP_FLUSH
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .restoring import BACK, NAME, creates, once_each
from .worlds import World


def backed_up(world: World, later: Callable[[], object]) -> dict[str, Any]:
    """Back up a collection into which somebody else writes after its flush; returns the rows at the flush."""
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"), shards=2)
    model.insert(NAME, [shapes.row(number) for number in range(10)])
    model.delete(NAME, [1])
    rows: dict[str, Any] = {}

    def others_write() -> None:
        rows.update(model.rows(NAME))
        later()
        model.flush(NAME)

    world.at("GetPersistentSegmentInfo", others_write)
    world.backup()
    assert model.rows(NAME) != rows
    return rows


@pytest.mark.parametrize("version", ["2.4.5", "2.4.24", "2.5.4", "2.5.10", "2.6.20", "3.0.1"])
def test_rows_written_after_the_flush_are_left_out_and_none_before_it_is_lost(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = backed_up(world, lambda: world.model.insert(NAME, [shapes.row(number) for number in range(100, 105)]))
    world.restore(suffix="_back", cut_at_flush=True)
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    moment = world.full_meta()["collection_backups"][0]["backup_timestamp"]
    sent = {int(body["options"]["end_ts"]) for body in creates(world) if "end_ts" in body["options"]}
    # Milliseconds are those of the flush, and the next: the flush itself lies between them.
    assert sent == {moment if PROFILES[version].hybrid_end_ts else (moment >> 18) + 1}


@pytest.mark.parametrize("version", ["2.4.24", "2.5.4", "2.6.20", "3.0.1"])
def test_deletes_and_updates_after_the_flush_take_no_row_away(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)

    def later() -> None:
        world.model.delete(NAME, [3])
        world.model.upsert(NAME, [{"id": 4, "v": [44.0, 0.5]}])

    rows = backed_up(world, later)
    world.restore(suffix="_back", cut_at_flush=True)
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    # What an L0 import leaves out by time is known to late releases only (internal/util/importutilv2/binlog/l0_reader.go).
    assert not any("l0_import" in body["options"] for body in creates(world))


def test_a_backup_without_a_flush_has_no_moment_to_cut_at(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    world.model.create_collection(NAME, shapes.schema("docs"))
    world.model.insert(NAME, [shapes.row(1)])
    world.model.flush(NAME)
    world.backup(strategy=SKIP_FLUSH)
    with pytest.raises(ConfigError, match=r"cut_at_flush: backup 'nightly' does not say when default\.docs was flushed"):
        world.restore(suffix="_back", cut_at_flush=True)


def test_nothing_is_cut_unless_it_is_asked_for(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.4")
    backed_up(world, lambda: world.model.insert(NAME, [shapes.row(100)]))
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == world.model.rows(NAME)
    assert not any("end_ts" in body["options"] for body in creates(world))
