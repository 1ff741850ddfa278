"""Users, roles, grants and privilege groups: out of one Milvus and into another."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, UnsupportedServer
from tests.contract import shapes
from tests.contract.rbac import Grant, User, hashed

from .worlds import World

NAME = ("default", "docs")
READERS = Grant("readers", "Collection", "docs", "default", "Search")
EVERYTHING = Grant("writers", "Global", "*", "*", "*")
VERSIONS = ["2.4.24", "2.5.10", "2.6.20", "3.0.0"]
LOGIN = {"user": "root", "password": "planted-root"}


def fill(world: World) -> None:
    """One collection, and everybody who may do something with it."""
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"))
    model.insert(NAME, [shapes.row(number) for number in range(4)])
    for role in ("readers", "writers"):
        model.create_role(role)
    model.create_user("ann", "planted-ann", ["readers", "admin"])
    model.create_user("bob", "planted-bob", ["writers", "public"])
    model.create_user("guest", "planted-guest")
    model.grant(READERS)
    model.grant(EVERYTHING)
    if world.server.profile.privilege_groups:
        model.create_privilege_group("ddl", ["CreateIndex", "DropIndex"])
        model.grant(Grant("readers", "Collection", "*", "default", "ddl"))


def logging_in(milvus: Callable[..., World], version: str) -> World:
    world = milvus(version, passwords={"root": LOGIN["password"]})
    world.address.update(LOGIN)
    return world


@pytest.mark.parametrize("version", VERSIONS)
def test_users_with_their_hashes_roles_grants_and_groups_come_back(milvus: Callable[..., World], version: str) -> None:
    source, target = logging_in(milvus, version), logging_in(milvus, version)
    fill(source)
    source.backup(include_rbac=True)
    source.restore_into(target, restore_rbac=True)
    assert target.model.users == source.model.users
    assert target.model.users["ann"] == User(hashed("planted-ann"), ["readers", "admin"])
    assert (sorted(target.model.roles), sorted(target.model.grants)) == (sorted(source.model.roles), sorted(source.model.grants))
    assert target.model.privilege_groups == source.model.privilege_groups
    assert target.model.rows(NAME) == source.model.rows(NAME)


@pytest.mark.parametrize("version", ["2.4.24", "3.0.0"])
def test_what_exists_is_left_alone_with_a_line_and_what_is_missing_is_added(milvus: Callable[..., World], version: str) -> None:
    source, target = logging_in(milvus, version), logging_in(milvus, version)
    fill(source)
    source.backup(include_rbac=True)
    target.model.create_role("readers")
    target.model.create_user("ann", "planted-other")
    target.model.create_user("guest", "planted-other")
    target.model.create_user("eve", "planted-eve")
    source.restore_into(target, restore_rbac=True)
    assert target.model.users == {
        "root": source.model.users["root"],
        "ann": User(hashed("planted-other"), []),
        "eve": User(hashed("planted-eve"), []),
        "bob": source.model.users["bob"],
        "guest": User(hashed("planted-other"), []),
    }
    assert sorted(target.model.grants) == sorted(source.model.grants)
    assert target.said("user 'ann' exists and is left as it is, without the roles admin, readers")
    assert target.said("user 'guest' exists and keeps its own password")
    assert not target.said("user 'bob' exists")


@pytest.mark.parametrize("version", ["2.4.24", "3.0.0"])
def test_grants_of_everything_come_back_where_nobody_must_log_in(milvus: Callable[..., World], version: str) -> None:
    # Milvus wants to know who grants, and rejects such grants in a whole set.
    source, target = milvus(version), milvus(version)
    fill(source)
    source.backup(include_rbac=True)
    source.restore_into(target, restore_rbac=True)
    assert EVERYTHING in target.model.grants
    assert sorted(target.model.grants) == sorted(source.model.grants)


def test_restoring_users_once_more_adds_nothing_twice(milvus: Callable[..., World]) -> None:
    source, target = logging_in(milvus, "2.6.20"), logging_in(milvus, "2.6.20")
    fill(source)
    source.backup(include_rbac=True)
    source.restore_into(target, restore_rbac=True)
    source.restore_into(target, restore_rbac=True, suffix="_again")
    assert (target.model.users, sorted(target.model.grants)) == (source.model.users, sorted(source.model.grants))
    assert target.said("added 0 users, 0 roles, 0 grants, 0 privilege groups")


def test_without_restore_rbac_nobody_is_added(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.20"), milvus("2.6.20")
    fill(source)
    source.backup(include_rbac=True)
    source.restore_into(target)
    assert (list(target.model.users), target.model.roles, target.model.grants) == (["root"], ["admin", "public"], [])


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20"])
def test_hashes_are_in_no_line_and_no_summary_but_where_the_format_has_them(milvus: Callable[..., World], version: str) -> None:
    source, target = logging_in(milvus, version), logging_in(milvus, version)
    fill(source)
    secrets = [user.password for name, user in source.model.users.items() if name != "root"]
    summaries = [source.backup(include_rbac=True), source.restore_into(target, restore_rbac=True)]
    told = "\n".join([*source.log.lines, *target.log.lines, json.dumps(summaries)])
    holding = {
        key for key in source.keys("backup/nightly") for secret in secrets if secret.encode() in source.read(f"backup/nightly/{key}")
    }
    assert [secret for secret in [*secrets, "planted"] if secret in told] == []
    assert holding == {"meta/full_meta.json", "provider/plan.json"}
    plan = json.loads(source.read("backup/nightly/provider/plan.json"))
    assert plan["full_meta"].pop("rbac_meta") == source.full_meta()["rbac_meta"]
    assert not [secret for secret in secrets if secret in json.dumps(plan)]
    assert "planted-root" not in "".join(str(source.read(f"backup/nightly/{key}")) for key in source.keys("backup/nightly"))


def test_without_include_rbac_nothing_is_asked_and_nothing_kept(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    world.backup()
    assert world.server.requests["BackupRBAC"] == 0
    assert "rbac_meta" not in world.full_meta()


def test_include_rbac_is_refused_below_2_4_9_before_anything_is_flushed_or_written(milvus: Callable[..., World]) -> None:
    world = milvus("2.4.5")
    fill(world)
    with pytest.raises(UnsupportedServer, match=r"backed up by Milvus 2\.4\.9 and newer, .* v2\.4\.5; leave include_rbac off"):
        world.backup(include_rbac=True)
    assert (world.server.requests["Flush"], world.keys("backup")) == (0, [])


def test_restore_rbac_is_refused_below_2_4_9_before_anything_changes(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.4.24"), milvus("2.4.5")
    fill(source)
    source.backup(include_rbac=True)
    with pytest.raises(UnsupportedServer, match=r"by Milvus 2\.4\.9 and newer, .* v2\.4\.5; leave \w+ off"):
        source.restore_into(target, restore_rbac=True)
    assert (target.server.requests["CreateCollection"], target.model.databases["default"].collections) == (0, {})


def test_restore_rbac_of_a_backup_without_users_is_refused_before_anything_changes(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    world.backup()
    with pytest.raises(
        ConfigError, match="restore_rbac: backup 'nightly' has no users and roles, because it was made without include_rbac"
    ):
        world.restore(suffix="_back", restore_rbac=True)
    assert world.server.requests["CreateCollection"] == 0


def test_who_may_not_ask_for_users_is_told_so_before_anything_is_flushed(milvus: Callable[..., World]) -> None:
    world = logging_in(milvus, "2.6.20")
    fill(world)
    world.server.accounts.forbidden["root"] = {"BackupRBAC"}
    with pytest.raises(AuthError):
        world.backup(include_rbac=True)
    assert (world.server.requests["Flush"], world.keys("backup/nightly/binlogs")) == (0, [])
