"""Every row comes back on every version: what was deleted stays deleted, what was inserted again is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .worlds import World

NAME, RESTORED = ("default", "docs"), ("default", "docs_back")


def fill(world: World, name: tuple[str, str] = NAME) -> None:
    """Two partitions in two channels; rows deleted in one partition and in all, updated, deleted and inserted again."""
    model = world.model
    model.create_collection(name, shapes.schema(name[1], dynamic=True), shards=2)
    model.create_partition(name, "second")
    model.insert(name, [shapes.row(number) for number in range(40)])
    model.insert(name, [shapes.row(number) for number in range(100, 120)], "second")
    model.flush(name)
    model.delete(name, [1, 2, 101])
    model.delete(name, [3, 102], "second")
    model.upsert(name, [shapes.row(number) for number in (5, 6)])
    model.flush(name)
    model.delete(name, [7])
    model.insert(name, [shapes.row(number) for number in (1, 7)])


@pytest.mark.parametrize("version", PROFILES)
def test_every_row_comes_back(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    rows = world.model.rows(NAME)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(RESTORED) == rows
    assert rows["_default"].keys() == set(range(40)) - {2}
