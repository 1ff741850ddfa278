"""Users, roles, grants and privilege groups (RBAC): the JSON of the meta files ⇄ Milvus's protobuf, and what a server lacks of them.

The format is that of ``RBACMeta`` in ``core/proto/backup.proto`` of ``zilliztech/milvus-backup``. Passwords are the hashes that Milvus
keeps; they are in the meta and in requests, and nowhere else. :mod:`.rbac_transfer` asks and changes servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import BackupDamaged
from .jsonreader import Node

if TYPE_CHECKING:
    from pymilvus.grpc_gen import milvus_pb2

#: Every Milvus has them from the start (``pkg/util/constant.go``); RestoreRBAC rejects a set that creates one of them.
BUILT_IN_USERS, BUILT_IN_ROLES = frozenset({"root"}), frozenset({"admin", "public"})
#: The privilege that stands for all.
ANY = "*"

# Milvus makes keys of its own out of these names and separates them by slashes; RestoreRBAC does not check them.
_NAME = re.compile(r"[^/\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class User:
    """One user: the hash of the password, which is never shown, and the names of the roles."""

    name: str
    password: str = field(repr=False)
    roles: list[str] = field(default_factory=list)


class Grant(NamedTuple):
    """One privilege, or privilege group, that a role has on an object of a database (``*`` for all); and who granted it."""

    role: str
    object: str
    object_name: str
    privilege: str
    database: str
    grantor: str = ""

    @property
    def identity(self) -> Grant:
        """What Milvus keeps one grant per: all but who granted it."""
        return self._replace(grantor="")


@dataclass(frozen=True, slots=True)
class PrivilegeGroup:
    """A named set of privileges; servers have them from 2.5."""

    name: str
    privileges: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rbac:
    """Everything that RestoreRBAC can make: all users, roles, grants and privilege groups that are not built in."""

    users: list[User] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    privilege_groups: list[PrivilegeGroup] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.users or self.roles or self.grants or self.privilege_groups)


# ---- what a server lacks -------------------------------------------------------------------------------------------------------


def missing(wanted: Rbac, there: Rbac) -> Rbac:
    """Return what a server that has ``there`` lacks of ``wanted``, such that RestoreRBAC takes it.

    RestoreRBAC rejects a whole set in which a user, a role or a privilege group exists already (``CheckIfRBACRestorable`` of
    ``internal/rootcoord/meta_table.go`` in 2.6, and before that the metastore), so these are left as they are: a user keeps the password
    and also the roles that the server gives it. Of a role that exists, grants that are missing are added.

    Never in it: built-in users and roles, grants of built-in roles (BackupRBAC does not tell which they have), and what would dangle,
    that is a role of a user or a role of a grant that will not exist, which makes RestoreRBAC reject the set. A user keeps built-in roles.
    """
    roles = {*there.roles, *wanted.roles} - BUILT_IN_ROLES
    users = BUILT_IN_USERS.union(user.name for user in there.users)
    groups = {group.name for group in there.privilege_groups}
    granted = {grant.identity for grant in there.grants}
    new_grants = {grant.identity: grant for grant in wanted.grants if grant.role in roles and grant.identity not in granted}
    return Rbac(
        users=[
            User(user.name, user.password, [role for role in dict.fromkeys(user.roles) if role in roles | BUILT_IN_ROLES])
            for user in wanted.users
            if user.name not in users
        ],
        roles=[role for role in dict.fromkeys(wanted.roles) if role not in BUILT_IN_ROLES.union(there.roles)],
        grants=list(new_grants.values()),
        privilege_groups=[group for group in wanted.privilege_groups if group.name not in groups],
    )


def kept(wanted: Rbac, there: Rbac) -> list[str]:
    """Return one sentence for every user and privilege group that a server has, differs from ``wanted`` and is left as it is."""
    roles = {user.name: set(user.roles) for user in there.users}
    lacking = {user.name: sorted({*user.roles} - roles.get(user.name, {*user.roles})) for user in wanted.users}
    passwords = {user.name: user.password for user in there.users}
    other = [user.name for user in wanted.users if not lacking[user.name] and passwords.get(user.name, user.password) != user.password]
    privileges = {group.name: set(group.privileges) for group in there.privilege_groups}
    different = [group.name for group in wanted.privilege_groups if privileges.get(group.name, {*group.privileges}) != {*group.privileges}]
    return [
        *(f"user {user!r} exists and is left as it is, without the roles {', '.join(names)}" for user, names in lacking.items() if names),
        *(f"user {user!r} exists and keeps its own password" for user in other),
        *(f"privilege group {group!r} exists with other privileges than in the backup and is left as it is" for group in different),
    ]


# ---- the meta files ------------------------------------------------------------------------------------------------------------


def from_json(value: Any, where: str) -> Rbac:
    """Return the RBAC of a meta file.

    :raises BackupDamaged: when it cannot be trusted; the message never holds a value of a user, for one may be a password's hash
    """
    if not isinstance(value, dict):
        raise BackupDamaged(f"{where} is not an object")
    root = Node(value, where)
    listed = value.get("users")
    if not isinstance(listed, list | None):
        raise BackupDamaged(f"{where}.users is not a list")
    found = Rbac(
        users=[_user(user, f"{where}.users[{index}]") for index, user in enumerate(listed or [])],
        roles=[_named(role, "name") for role in root.nodes("roles")],
        grants=[_grant(grant) for grant in root.nodes("grants")],
        privilege_groups=[
            PrivilegeGroup(_named(group, "group_name"), [_named(privilege, "name") for privilege in group.nodes("privileges")])
            for group in root.nodes("privilege_groups")
        ],
    )
    _once(where, "user", (user.name for user in found.users))
    _once(where, "role", found.roles)
    _once(where, "privilege group", (group.name for group in found.privilege_groups))
    return found


def _user(value: Any, where: str) -> User:
    try:
        user = Node(value, where)
        return User(_named(user, "user"), user.string("password"), [_named(role, "name") for role in user.nodes("roles")])
    except BackupDamaged:
        damage = BackupDamaged(f"{where} is not a user with a name, a password and named roles")
    raise damage


def _grant(node: Node) -> Grant:
    grantor = _object(node, "grantor")
    return Grant(
        role=_named(_object(node, "role"), "name"),
        object=_named(_object(node, "object"), "name"),
        object_name=_named(node, "object_name"),
        privilege=_named(_object(grantor, "privilege"), "name"),
        database=_named(node, "db_name", required=False),
        grantor=_named(_object(grantor, "user"), "name", required=False),
    )


def _object(node: Node, key: str) -> Node:
    value = node.value.get(key)
    return Node({} if value is None else value, f"{node.where}.{key}")


def _named(node: Node, key: str, *, required: bool = True) -> str:
    name = node.string(key)
    if not _NAME.fullmatch(name) and (name or required):
        raise node.wrong(key, "a name")
    return name


def _once(where: str, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BackupDamaged(f"{where} holds {what} {name!r} twice")
        seen.add(name)


def to_json(rbac: Rbac) -> dict[str, Any]:
    """Return the value of ``rbac_meta`` in full_meta.json; zero values are left out, as everywhere in the meta files."""
    return _kept(
        {
            "users": [_kept({"user": user.name, "password": user.password, "roles": _names(user.roles)}) for user in rbac.users],
            "roles": _names(rbac.roles),
            "grants": [
                _kept(
                    {
                        "role": {"name": grant.role},
                        "object": {"name": grant.object},
                        "object_name": grant.object_name,
                        "grantor": _kept({"user": _kept({"name": grant.grantor}), "privilege": {"name": grant.privilege}}),
                        "db_name": grant.database,
                    }
                )
                for grant in rbac.grants
            ],
            "privilege_groups": [_kept({"group_name": g.name, "privileges": _names(g.privileges)}) for g in rbac.privilege_groups],
        }
    )


def _names(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value}


# ---- protobuf ------------------------------------------------------------------------------------------------------------------


def from_proto(answer: milvus_pb2.RBACMeta) -> Rbac:
    """Return the RBAC that BackupRBAC answered."""
    return Rbac(
        users=[User(user.user, user.password, [role.name for role in user.roles]) for user in answer.users],
        roles=[role.name for role in answer.roles],
        grants=[
            Grant(
                grant.role.name,
                grant.object.name,
                grant.object_name,
                grant.grantor.privilege.name,
                grant.db_name,
                grant.grantor.user.name,
            )
            for grant in answer.grants
        ],
        privilege_groups=[PrivilegeGroup(g.group_name, [privilege.name for privilege in g.privileges]) for g in answer.privilege_groups],
    )


def to_proto(rbac: Rbac) -> milvus_pb2.RBACMeta:
    """Return the message for RestoreRBAC."""
    from pymilvus.grpc_gen import milvus_pb2

    message = milvus_pb2.RBACMeta()
    for user in rbac.users:
        message.users.add(user=user.name, password=user.password, roles=[milvus_pb2.RoleEntity(name=role) for role in user.roles])
    for role in rbac.roles:
        message.roles.add(name=role)
    message.grants.extend(grant_to_proto(grant) for grant in rbac.grants)
    for group in rbac.privilege_groups:
        privileges = [milvus_pb2.PrivilegeEntity(name=privilege) for privilege in group.privileges]
        message.privilege_groups.add(group_name=group.name, privileges=privileges)
    return message


def grant_to_proto(grant: Grant) -> milvus_pb2.GrantEntity:
    """Return the message of one grant."""
    from pymilvus.grpc_gen import milvus_pb2

    return milvus_pb2.GrantEntity(
        role=milvus_pb2.RoleEntity(name=grant.role),
        object=milvus_pb2.ObjectEntity(name=grant.object),
        object_name=grant.object_name,
        grantor=milvus_pb2.GrantorEntity(
            user=milvus_pb2.UserEntity(name=grant.grantor), privilege=milvus_pb2.PrivilegeEntity(name=grant.privilege)
        ),
        db_name=grant.database,
    )
