"""What happens to rows while a backup looks at them must not take them out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.server import MilvusServer
from tests.contract import shapes

from .worlds import World

NAME, RESTORED = ("default", "docs"), ("default", "docs_back")


@pytest.mark.parametrize("version", ["2.4.24", "2.5.10", "2.6.20", "3.0.0"])
def test_an_update_that_is_compacted_while_segments_are_listed_loses_no_row(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Its delete reaches a segment that is listed already, its new value one that is not."""
    world = milvus(version)
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"))
    model.insert(NAME, [shapes.row(number) for number in range(5)])
    segments, listings = MilvusServer.segments, []

    def then_update(server: MilvusServer, name: Any) -> Any:
        found = segments(server, name)
        listings.append(found)
        if len(listings) == 1:
            model.upsert(NAME, [{"id": 0, "v": [9.0, 9.0]}])
            model.flush(NAME)
            model.compact_l0(NAME)
        return found

    monkeypatch.setattr(MilvusServer, "segments", then_update)
    world.backup()
    monkeypatch.undo()
    assert world.said("while it was looked at") or world.said("while they were looked at") or world.said("it was just compacted")
    world.restore(suffix="_back")
    assert world.model.rows(RESTORED) == world.model.rows(NAME)
    assert world.model.rows(RESTORED)["_default"].keys() == set(range(5))
