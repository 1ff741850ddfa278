"""Users, roles and grants come back where they are missing, nowhere else, and no hash is ever shown."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.errors import BackupDamaged, UnsupportedFormat, UnsupportedServer
from airflow_provider_milvus_backup.core.meta import Backup
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.rbac import (
    BUILT_IN_ROLES,
    BUILT_IN_USERS,
    Grant,
    PrivilegeGroup,
    Rbac,
    User,
    from_json,
    from_proto,
    kept,
    missing,
    to_json,
    to_proto,
)
from airflow_provider_milvus_backup.core.rbac_transfer import RbacCounts, backup_rbac, restore_rbac
from airflow_provider_milvus_backup.core.report import Reporter
from tests.unit.meta_documents import BUSY, rbacs
from tests.unit.rbac_server import OldServer, RbacServer, serving
from tests.unit.test_fuzz_readers import FUZZ, documented, mutate, written

HASH = "$2a$10$Zp7Vb0secret"
READ = Grant("reader", "Collection", "*", "Search", "default", "root")
FULL = Rbac(
    users=[User("bob", HASH, ["reader", "public"]), User("eve", HASH)],
    roles=["reader", "writer"],
    grants=[READ, Grant("writer", "Global", "*", "*", "*", "root"), Grant("writer", "Collection", "docs", "pg1", "default", "root")],
    privilege_groups=[PrivilegeGroup("pg1", ["Query", "Search"])],
)
FRAGMENT: dict[str, Any] = {
    "users": [{"user": "bob", "password": HASH, "roles": [{"name": "reader"}]}],
    "roles": [{"name": "reader"}],
    "grants": [
        {
            "role": {"name": "reader"},
            "object": {"name": "Collection"},
            "object_name": "*",
            "grantor": {"user": {"name": "root"}, "privilege": {"name": "Search"}},
            "db_name": "default",
        }
    ],
    "privilege_groups": [{"group_name": "pg1", "privileges": [{"name": "Query"}]}],
}


def sets(rbac: Rbac) -> tuple[set[str], set[str], set[Grant], set[str]]:
    users = {user.name for user in rbac.users}
    return users, set(rbac.roles), {grant.identity for grant in rbac.grants}, {group.name for group in rbac.privilege_groups}


# ---- the meta files ------------------------------------------------------------------------------------------------------------


def test_the_documented_fragment_is_read_and_written_key_for_key() -> None:
    found = from_json(FRAGMENT, "rbac_meta")
    expected = Rbac([User("bob", HASH, ["reader"])], ["reader"], [READ], [PrivilegeGroup("pg1", ["Query"])])
    assert (found, to_json(found)) == (expected, FRAGMENT)


@settings(BUSY, max_examples=50)
@given(rbacs)
def test_rbac_is_read_as_it_was_written_and_sent_as_it_was_answered(rbac: Rbac) -> None:
    assert from_json(json.loads(json.dumps(to_json(rbac))), "rbac_meta") == rbac
    assert from_proto(to_proto(rbac)) == rbac


def test_null_and_missing_keys_are_read_as_go_reads_them() -> None:
    assert from_json({"users": None, "grants": None, "unknown": 3}, "rbac_meta") == Rbac()
    assert from_json({"users": [{"user": "bob"}]}, "rbac_meta").users == [User("bob", "", [])]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"users": {}}, "users"),
        ({"users": [3]}, r"users\[0\]"),
        ({"users": [{"user": ""}]}, r"users\[0\]"),
        ({"users": [{"user": "a/b"}]}, r"users\[0\]"),
        ({"users": [{"user": "bob", "roles": ["reader"]}]}, r"users\[0\]"),
        ({"users": [{"user": "bob"}, {"user": "bob"}]}, "user 'bob' twice"),
        ({"roles": [{"name": "reader"}, {"name": "reader"}]}, "role 'reader' twice"),
        ({"roles": [{}]}, r"roles\[0\]\.name"),
        ({"roles": [{"name": "a/b"}]}, r"roles\[0\]\.name"),
        ({"roles": [{"name": "a\nb"}]}, r"roles\[0\]\.name"),
        ({"grants": [{}]}, r"grants\[0\]\.role\.name"),
        ({"grants": [{"role": "reader"}]}, r"grants\[0\]\.role is 'reader'"),
        ({"grants": [FRAGMENT["grants"][0] | {"grantor": {}}]}, r"grants\[0\]\.grantor\.privilege\.name"),
        ({"grants": [FRAGMENT["grants"][0] | {"object_name": 7}]}, r"grants\[0\]\.object_name"),
        ({"privilege_groups": [{"group_name": "pg1"}, {"group_name": "pg1"}]}, "privilege group 'pg1' twice"),
        ({"privilege_groups": [{"group_name": "pg1", "privileges": [{}]}]}, r"privileges\[0\]\.name"),
    ],
)
def test_damage_is_refused_and_its_place_named(change: dict[str, Any], place: str) -> None:
    with pytest.raises(BackupDamaged, match=place):
        from_json(FRAGMENT | change, "full_meta.json.rbac_meta")


@pytest.mark.parametrize(
    "value",
    [
        HASH,
        [HASH],
        {"users": HASH},
        {"users": {"bob": HASH}},
        {"users": [HASH]},
        {"users": [{"user": "bob", "password": [HASH]}]},
        {"users": [{"user": {"password": HASH}}]},
        {"users": [{"user": f"{HASH}/"}]},
        {"users": [{"user": "bob", "password": HASH, "roles": HASH}]},
        {"users": [{"user": "bob", "password": HASH}] * 2},
    ],
)
def test_no_error_about_damage_shows_a_hash(value: Any) -> None:
    with pytest.raises(BackupDamaged) as caught:
        from_json(value, "rbac_meta")
    error: BaseException | None = caught.value
    while error:
        assert "$2a" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_no_repr_shows_a_hash() -> None:
    backup = Backup("id", "nightly", "v2.6.4", [], rbac=FULL)
    plan = BackupPlan(backup, "flush", "files", "backup")
    assert HASH in plan.to_json().decode()
    for shown in (repr(FULL), str(FULL.users), repr(backup), repr(plan)):
        assert "bob" in shown
        assert HASH not in shown


@settings(FUZZ, max_examples=300)
@given(st.data())
def test_changed_rbac_is_refused_or_can_be_sent_and_written(data: st.DataObject) -> None:
    content = written(mutate({"name": "nightly", "rbac_meta": FRAGMENT}, data), data)
    with documented(BackupDamaged, UnsupportedFormat):
        backup = from_files({"full_meta.json": content})
        assert from_files(dict(to_files(backup, "files"))).rbac == backup.rbac
        if backup.rbac:
            assert from_proto(to_proto(backup.rbac)) == backup.rbac
            assert all(name and "/" not in name for found in (backup.rbac, missing(backup.rbac, Rbac())) for name in every_name(found))


def every_name(rbac: Rbac) -> list[str]:
    return [name for found in sets(rbac)[:2] for name in found] + [role for user in rbac.users for role in user.roles]


# ---- what a server lacks -------------------------------------------------------------------------------------------------------


def test_a_bare_server_lacks_everything_that_is_not_built_in() -> None:
    assert missing(FULL, Rbac()) == FULL


def test_a_server_that_has_everything_lacks_nothing() -> None:
    assert missing(FULL, FULL).is_empty


def test_a_user_that_exists_keeps_its_password_and_its_roles() -> None:
    there = Rbac(users=[User("bob", "$2a$10$other", [])])
    assert missing(FULL, there).users == [User("eve", HASH)]
    assert kept(FULL, there) == ["user 'bob' exists and is left as it is, without the roles public, reader"]


def test_a_privilege_group_that_exists_keeps_its_privileges() -> None:
    there = Rbac(privilege_groups=[PrivilegeGroup("pg1", ["Insert"])])
    assert missing(FULL, there).privilege_groups == []
    assert kept(FULL, there) == ["privilege group 'pg1' exists with other privileges than in the backup and is left as it is"]


def test_nothing_is_said_about_what_is_equal_or_absent() -> None:
    assert kept(FULL, FULL) == kept(FULL, Rbac()) == []
    assert kept(Rbac([User("bob", HASH)]), Rbac([User("bob", HASH, ["more"])])) == []


def test_a_role_that_exists_gets_the_grants_it_lacks() -> None:
    there = Rbac(roles=["reader", "writer"], grants=[READ])
    found = missing(FULL, there)
    assert (found.roles, found.grants) == ([], FULL.grants[1:])


@pytest.mark.parametrize("part", ["role", "object", "object_name", "privilege", "database"])
def test_a_grant_is_known_by_role_object_name_privilege_and_database(part: str) -> None:
    wanted = Rbac(roles=["reader"], grants=[READ])
    other = READ._replace(**{part: "other"})
    assert missing(wanted, Rbac(grants=[other])).grants == [READ]
    assert missing(wanted, Rbac(grants=[READ._replace(grantor="other")])).grants == []


def test_a_grant_named_twice_is_sent_once() -> None:
    wanted = Rbac(roles=["reader"], grants=[READ, READ._replace(grantor="alice"), READ])
    assert len(missing(wanted, Rbac()).grants) == 1


def test_what_is_built_in_is_never_created() -> None:
    wanted = Rbac(
        users=[User("root", HASH), User("bob", HASH, ["admin"])],
        roles=["admin", "public", "reader"],
        grants=[READ, READ._replace(role="admin"), READ._replace(role="public")],
    )
    assert missing(wanted, Rbac()) == Rbac([User("bob", HASH, ["admin"])], ["reader"], [READ])


def test_what_would_dangle_is_left_out() -> None:
    wanted = Rbac(users=[User("bob", HASH, ["gone", "reader"])], roles=["reader"], grants=[READ._replace(role="gone"), READ])
    assert missing(wanted, Rbac()) == Rbac([User("bob", HASH, ["reader"])], ["reader"], [READ])


@settings(BUSY, max_examples=100)
@given(rbacs, rbacs)
def test_a_server_takes_whatever_is_missing_and_then_lacks_nothing(wanted: Rbac, there: Rbac) -> None:
    there = missing(there, Rbac())  # as BackupRBAC answers: nothing built in, nothing dangling
    found = missing(wanted, there)
    users, roles, grants, groups = sets(found)
    assert not users & (sets(there)[0] | BUILT_IN_USERS)
    assert not roles & (sets(there)[1] | BUILT_IN_ROLES)
    assert not grants & sets(there)[2]
    assert not groups & sets(there)[3]
    known = roles | {*there.roles} | BUILT_IN_ROLES
    assert all(role in known for user in found.users for role in user.roles)
    assert all(grant.role in known - BUILT_IN_ROLES for grant in found.grants)
    together = Rbac(*([*getattr(there, part), *getattr(found, part)] for part in ("users", "roles", "grants", "privilege_groups")))
    assert missing(wanted, together).is_empty


# ---- servers -------------------------------------------------------------------------------------------------------------------


def test_everything_travels_from_one_server_to_another_wildcards_included() -> None:
    source, target = RbacServer(), RbacServer()
    source.rbac.CopyFrom(to_proto(FULL))
    with serving(source) as server:
        found = backup_rbac(server)
    assert found == FULL
    with serving(target) as server:
        assert restore_rbac(server, found, Reporter()) == RbacCounts(users=2, roles=2, grants=3, privilege_groups=1)
    assert sets(from_proto(target.rbac)) == sets(FULL)
    assert {user.name: user.password for user in target_users(target)} == {"bob": HASH, "eve": HASH}


def target_users(target: RbacServer) -> list[User]:
    return from_proto(target.rbac).users


def test_restoring_twice_adds_nothing_twice_and_sends_no_empty_set() -> None:
    target = RbacServer()
    with serving(target) as server:
        restore_rbac(server, FULL, Reporter())
        before = copy.deepcopy(target.rbac)
        del target.requests[:]
        assert restore_rbac(server, FULL, Reporter()) == RbacCounts()
    assert target.rbac == before
    assert target.requests == ["BackupRBAC"]


def test_what_exists_stays_and_what_is_missing_comes() -> None:
    target = RbacServer()
    target.rbac.CopyFrom(to_proto(Rbac(users=[User("bob", "$2a$10$mine", [])], roles=["reader"])))
    with serving(target) as server:
        counts = restore_rbac(server, FULL, Reporter())
    assert counts == RbacCounts(users=1, roles=1, grants=3, privilege_groups=1)
    assert User("bob", "$2a$10$mine", []) in target_users(target)


def test_a_restore_of_grants_of_all_privileges_alone_sends_no_set() -> None:
    target = RbacServer()
    target.rbac.CopyFrom(to_proto(Rbac(roles=["writer"])))
    with serving(target) as server:
        assert restore_rbac(server, Rbac(roles=["writer"], grants=[FULL.grants[1]]), Reporter()) == RbacCounts(grants=1)
    assert target.requests == ["BackupRBAC", "OperatePrivilege"]
    assert from_proto(target.rbac).grants == [FULL.grants[1]]


def test_a_lost_answer_is_no_failure_when_the_server_did_it() -> None:
    target = RbacServer()
    target.lost_answers = 1
    with serving(target) as server:
        assert restore_rbac(server, FULL, Reporter()).users == 2
    assert target.requests.count("RestoreRBAC") == 2
    assert sets(from_proto(target.rbac)) == sets(FULL)


def test_an_old_server_is_named_with_what_to_do() -> None:
    with serving(OldServer()) as server:
        with pytest.raises(UnsupportedServer, match=r"backed up by Milvus 2\.4\.9 .*version v2\.3\.5; leave include_rbac off"):
            backup_rbac(server)
        with pytest.raises(UnsupportedServer, match=r"restored by Milvus 2\.4\.9 .*version v2\.3\.5; leave restore_rbac off"):
            restore_rbac(server, FULL, Reporter())


def test_the_log_counts_what_was_added_warns_of_what_was_kept_and_shows_no_hash(caplog: pytest.LogCaptureFixture) -> None:
    target = RbacServer()
    target.rbac.CopyFrom(to_proto(Rbac(users=[User("bob", HASH, [])])))
    with caplog.at_level(logging.DEBUG), serving(target) as server:
        restore_rbac(server, FULL, Reporter())
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("airflow_provider")]
    assert lines == [
        ("WARNING", "user 'bob' exists and is left as it is, without the roles public, reader"),
        ("INFO", "added 1 user, 2 roles, 3 grants, 1 privilege group"),
    ]
    assert HASH not in caplog.text


def test_an_error_of_the_server_shows_no_hash() -> None:
    target = RbacServer()
    with serving(target) as server, pytest.raises(Exception, match=r"user \[root\] already exists") as caught:
        server.restore_rbac(to_proto(replace(FULL, users=[User("root", HASH)], grants=[])), lambda: False)
    assert HASH not in f"{caught.value} {caught.value!r}"
