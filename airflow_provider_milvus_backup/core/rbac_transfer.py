"""Users, roles, grants and privilege groups: asked of one Milvus, given to another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .errors import UnsupportedServer
from .rbac import ANY, Rbac, from_proto, grant_to_proto, kept, missing, to_proto
from .report import Reporter, counted
from .server import MilvusServer

_NEEDS = "users, roles and grants can be {what} by Milvus 2.4.9 and newer, and {server} is version {version}; leave {option} off"


class RbacCounts(NamedTuple):
    """How many of each a restore has added."""

    users: int = 0
    roles: int = 0
    grants: int = 0
    privilege_groups: int = 0

    def __str__(self) -> str:
        """Return ``1 user, 2 roles, 3 grants, 0 privilege groups``."""
        nouns = ("user", "role", "grant", "privilege group")
        return ", ".join(counted(count, noun) for count, noun in zip(self, nouns, strict=True))


def backup_rbac(server: MilvusServer) -> Rbac:
    """Return all users (with the hashes of their passwords), roles, grants and privilege groups that are not built in.

    :raises UnsupportedServer: before Milvus 2.4.9
    :raises AuthError: when the user of the connection may not ask for them; ``root`` and ``admin`` may
    """
    try:
        return from_proto(server.backup_rbac())
    except UnsupportedServer:
        text = _NEEDS.format(what="backed up", server=server.address, version=server.version, option="include_rbac")
        raise UnsupportedServer(text) from None


def restore_rbac(server: MilvusServer, wanted: Rbac, reporter: Reporter) -> RbacCounts:
    """Add what the server lacks of ``wanted`` and return how many that were; what exists is left as it is, and said if it differs.

    Doing it again adds nothing twice. :func:`.rbac.missing` says what is added. Grants of all privileges (``*``) are given one by one:
    RestoreRBAC of 2.4, of 2.5 and of 2.6 before April 2026 rejects the whole set for them (milvus-io/milvus#48963). Milvus notes who gives
    them: the user of the connection, and root where nobody logs in.

    :raises UnsupportedServer: before Milvus 2.4.9
    :raises AuthError: when the user of the connection may not change them; ``root`` and ``admin`` may
    """
    try:
        there = from_proto(server.backup_rbac())
    except UnsupportedServer:
        text = _NEEDS.format(what="restored", server=server.address, version=server.version, option="restore_rbac")
        raise UnsupportedServer(text) from None
    for line in kept(wanted, there):
        reporter.warn(line)
    added = missing(wanted, there)
    at_once = replace(added, grants=[grant for grant in added.grants if grant.privilege != ANY])
    if not at_once.is_empty:  # 2.6 and newer reject an empty set

        def done() -> bool:
            return missing(at_once, from_proto(server.backup_rbac())).is_empty

        server.restore_rbac(to_proto(at_once), done)
    if everything := [grant for grant in added.grants if grant.privilege == ANY]:
        with _named(server) as granting:
            for grant in everything:
                granting.grant(grant_to_proto(grant))
    counts = RbacCounts(len(added.users), len(added.roles), len(added.grants), len(added.privilege_groups))
    reporter.line(f"added {counts}")
    return counts


@contextlib.contextmanager
def _named(server: MilvusServer) -> Iterator[MilvusServer]:
    """Yield the server as it is asked by somebody with a name.

    OperatePrivilege reads who asks out of the login, also where authorization is off and nobody has one (``GetCurUserFromContext`` of
    ``pkg/util/contextutil``); no password is looked at then. The user must exist, and root always does.
    """
    if server.address.user or server.address.token:
        yield server
        return
    named = MilvusServer(replace(server.address, user="root"), server.patience)
    try:
        yield named
    finally:
        named.close()
