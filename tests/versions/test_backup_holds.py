"""A backup on hold stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core import holds
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.contract import shapes

from .worlds import World

NAME = ("default", "docs")


def test_a_backup_on_hold_is_not_replaced_until_it_is_released(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    world.model.create_collection(NAME, shapes.schema("docs"))
    world.model.insert(NAME, [shapes.row(1)])
    world.backup()
    store, owner, reporter = ObjectStore(world.settings.backup_storage), Owner("legal/run/hold/-1"), Reporter(world.log)
    holds.hold(store, "nightly", "case 4711", "legal@example.com", None, owner, reporter)
    world.model.insert(NAME, [shapes.row(2)])
    before = {key: world.read(f"backup/nightly/{key}") for key in world.keys("backup/nightly")}
    with pytest.raises(ConfigError, match=r"on hold of legal@example\.com without an end: case 4711\. It cannot be replaced"):
        world.backup(if_exists="replace")
    assert {key: world.read(f"backup/nightly/{key}") for key in world.keys("backup/nightly")} == before
    holds.release(store, "nightly", owner, reporter)
    assert world.backup(if_exists="replace")["rows"] == 2
