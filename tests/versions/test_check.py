"""The preflight against every version: what is asked changes nothing, and what is missing on this Milvus is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import rpc
from airflow_provider_milvus_backup.core.checking import FAIL, PASS, SKIP, WARN
from airflow_provider_milvus_backup.core.errors import Cancelled
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.preflight import NAMES, check
from airflow_provider_milvus_backup.core.report import Reporter
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .worlds import World

NAME = ("default", "docs")
#: Nothing listens there.
NOWHERE = "http://127.0.0.1:9"
LOGIN = {"user": "ann", "password": "secret-of-ann"}
#: What takes long and has nothing to do with Milvus.
PROBES = [name for name in NAMES if name.startswith("backup_storage.")]
CHANGES = ("CreateCollection", "CreatePartition", "CreateIndex", "RenameCollection", "DropCollection", "LoadCollection", "Import")


def filled(world: World) -> World:
    world.model.create_collection(NAME, shapes.schema("docs"))
    world.model.insert(NAME, [shapes.row(number) for number in range(8)])
    world.model.flush(NAME)
    return world


def checked(world: World, *, patience: Patience | None = None, **options: Any) -> dict[str, Any]:
    """Check; Milvus has the same collections, rows and files after it, and nothing is left of the probes."""

    def everything() -> Any:
        databases = {name: sorted(database.collections) for name, database in world.model.databases.items()}
        return databases, world.model.rows(NAME) if world.model.databases["default"].collections else {}

    before, files = everything(), world.model.bucket.list("")
    found = check(world.settings, Reporter(world.log), patience or Patience(timeout=250), **options)
    assert everything() == before
    assert world.model.bucket.list("") == files
    assert [line["name"] for line in found["checks"]] == list(NAMES)
    return found


def lines(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in found["checks"]}


def names(found: dict[str, Any], status: str) -> list[str]:
    return [line["name"] for line in found["checks"] if line["status"] == status]


@pytest.mark.parametrize("version", PROFILES)
def test_where_all_is_well_all_passes_and_what_this_milvus_can_do_is_told(milvus: Callable[..., World], version: str) -> None:
    world = filled(milvus(version, passwords={"ann": LOGIN["password"]}))
    world.address = LOGIN
    found = checked(world)
    assert (found["status"], names(found, FAIL), names(found, WARN)) == (PASS, [], [])
    assert (found["server_version"], found["retryable"]) == (f"v{version}", False)
    told = found["capabilities"]
    assert told["rest_import"] is True
    assert told["flush_all"] is PROFILES[version].flush_all_messages
    assert told["snapshots"] is PROFILES[version].snapshot_export
    assert "imports go by it" in lines(found)["milvus.rest"]["message"]
    assert [action for action, _ in world.server.gc.history] == ["pause"]
    assert not world.server.gc.paused()
    assert world.server.requests["Flush"] == 1, "the one for a collection that does not exist"


def test_rest_that_cannot_be_reached_is_a_warning_and_the_capabilities_say_so(milvus: Callable[..., World]) -> None:
    world = filled(milvus("2.6.20"))
    world.address = {"rest_endpoint": NOWHERE}
    found = checked(world)
    assert names(found, WARN) == ["milvus.rest"]
    assert "imports go by gRPC, one segment a job" in lines(found)["milvus.rest"]["message"]
    assert (found["capabilities"]["rest_import"], found["capabilities"]["segments_describe"]) == (False, False)


def test_rest_that_refuses_the_login_fails(milvus: Callable[..., World]) -> None:
    world, other = filled(milvus("2.6.20")), milvus("2.6.20", passwords={"bob": "another-secret"})
    world.address = {**LOGIN, "rest_endpoint": other.server.rest_endpoint}
    found = checked(world)
    assert (names(found, FAIL), found["retryable"]) == (["milvus.rest"], False)
    assert "refuses the login that gRPC accepts" in lines(found)["milvus.rest"]["message"]
    assert LOGIN["password"] not in str(found)


@pytest.mark.parametrize("broken", ["nowhere", "refused", "not_a_url"])
def test_a_management_port_that_does_not_pause_is_a_warning(milvus: Callable[..., World], broken: str) -> None:
    world = filled(milvus("2.6.20"))
    world.server.gc.broken = (500, "failed to pause garbage collection, no") if broken == "refused" else None
    world.address = {"nowhere": {"management_endpoint": NOWHERE}, "not_a_url": {"management_endpoint": "no url"}}.get(broken, {})
    found = checked(world)
    line = lines(found)["milvus.management"]
    assert line["status"] == (FAIL if broken == "not_a_url" else WARN)
    assert "management_endpoint" in line["remedy"]


def test_privileges_are_asked_for_one_by_one(milvus: Callable[..., World]) -> None:
    world = filled(milvus("2.6.20", passwords={"ann": LOGIN["password"]}))
    world.address = LOGIN
    for denied in CHANGES:
        world.server.accounts.forbidden = {"ann": {denied}}
        found = checked(world, skip=PROBES)
        assert names(found, FAIL) == ["milvus.restore_privileges"]
        assert f"user 'ann' lacks the privilege for {denied}" in lines(found)["milvus.restore_privileges"]["message"]
        assert names(checked(world, include_restore=False, skip=PROBES), FAIL) == []
    world.server.accounts.forbidden = {"ann": {"Flush"}}
    assert names(checked(world, skip=PROBES), WARN) == ["milvus.backup_privileges"]
    world.server.accounts.forbidden = {"ann": {"DescribeCollection"}}
    assert names(checked(world, skip=PROBES), FAIL) == ["milvus.read", "milvus_storage.segment"]


def test_users_and_roles_are_asked_for_only_where_they_are_wanted(milvus: Callable[..., World]) -> None:
    world = filled(milvus("2.6.20", passwords={"ann": LOGIN["password"]}))
    world.address = LOGIN
    assert lines(checked(world, include_rbac=True, skip=PROBES))["milvus.rbac"]["status"] == PASS
    world.server.accounts.forbidden = {"ann": {"BackupRBAC"}}
    assert names(checked(world, skip=PROBES), FAIL) == []
    assert names(checked(world, include_rbac=True, skip=PROBES), FAIL) == ["milvus.rbac"]
    old = filled(milvus("2.4.5"))
    assert "2.4.9 and newer" in lines(checked(old, include_rbac=True, skip=PROBES))["milvus.rbac"]["message"]


def test_a_milvus_that_is_too_old_fails(milvus: Callable[..., World]) -> None:
    world = filled(milvus(replace(PROFILES["2.4.5"], version="v2.2.8")))
    found = checked(world)
    assert names(found, FAIL) == ["milvus.version"]
    assert lines(found)["milvus.rest"]["status"] == SKIP
    assert lines(found)["milvus_storage.segment"]["status"] == PASS


def test_a_build_that_is_no_release_is_a_warning(milvus: Callable[..., World]) -> None:
    found = checked(filled(milvus(replace(PROFILES["2.6.20"], version="master-20260404-abcdef"))))
    assert "is that of no release" in lines(found)["milvus.version"]["message"]


def test_a_milvus_that_is_away_is_worth_a_retry_and_the_storages_are_checked(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "CONNECT_SECONDS", 0.5)
    world = filled(milvus("2.6.20"))
    world.address = {"port": 9}
    found = checked(world)
    assert (names(found, FAIL), found["retryable"]) == (["milvus.connect"], True)
    assert (found["server_version"], found["capabilities"]) == ("", {})
    assert {"backup_storage.copy", "milvus_storage.segment", "milvus.read"} <= set(names(found, SKIP))
    assert {"milvus_storage.list", "backup_storage.write", "backup_storage.delete", "clocks"} <= set(names(found, PASS))


def test_lines_that_are_left_out_are_not_looked_at_and_nothing_else_changes(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = filled(milvus("2.6.20"))
    left_out = ["milvus.connect", "milvus.login", "milvus_storage.list", "backup_storage.list"]
    found = checked(world, skip=left_out)
    others = ["milvus.rbac", "backup_storage.versioning", "backup_storage.object_lock"]
    assert sorted(names(found, SKIP)) == sorted([*left_out, *others])
    assert (names(found, FAIL), found["server_version"]) == ([], "v2.6.20")
    monkeypatch.setattr(rpc, "CONNECT_SECONDS", 0.5)
    world.address = {"port": 9}
    away = checked(world, skip=",".join(left_out))
    assert {"milvus.version", "milvus.collections"} <= set(names(away, FAIL))
    assert (away["server_version"], away["capabilities"]) == ("", {})


def test_a_milvus_without_collections_is_a_warning_and_proves_nothing(milvus: Callable[..., World]) -> None:
    found = checked(milvus("2.6.20"))
    assert names(found, FAIL) == []
    assert names(found, WARN) == ["milvus.collections", "milvus_storage.list", "milvus_storage.segment", "restore.staging"]
    assert {"milvus.read", "milvus_storage.read", "backup_storage.copy"} <= set(names(found, SKIP))


def test_a_kill_in_the_middle_leaves_no_probes(milvus: Callable[..., World]) -> None:
    world, patience = filled(milvus("2.6.20")), Patience()
    world.log.actions["backup_storage.conditional"] = patience.stop.set
    before = world.model.bucket.list("")
    with pytest.raises(Cancelled):
        check(world.settings, Reporter(world.log), patience)
    assert world.model.bucket.list("") == before
