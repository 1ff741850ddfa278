"""Users, roles, grants and privilege groups.

``internal/metastore/kv/rootcoord/kv_catalog.go`` and ``internal/rootcoord/meta_table.go`` of milvus-io/milvus.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .refusals import invalid, unexpected
from .state import State

ROOT, BUILT_IN_ROLES, ANY = "root", ("admin", "public"), "*"
_PRIVILEGE = re.compile(r"[A-Z][A-Za-z]+")


class Grant(NamedTuple):
    """What a role may do."""

    role: str
    object: str
    object_name: str
    database: str
    privilege: str
    grantor: str = "root"


@dataclass(slots=True)
class User:
    """A user; the password is what BackupRBAC gives away of it: a hash."""

    password: str
    roles: list[str] = field(default_factory=list)


def hashed(password: str) -> str:
    """Return a hash in the shape of bcrypt's; two clusters that hold the same one accept the same password."""
    return "$2a$10$" + hashlib.sha256(password.encode()).hexdigest()[:53]


class Rbac(State):
    """Who may do what. Every Milvus has the user ``root`` and the roles ``admin`` and ``public``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.users = {ROOT: User(hashed("Milvus"))}
        self.roles = [*BUILT_IN_ROLES]
        self.grants: list[Grant] = []
        self.privilege_groups: dict[str, list[str]] = {}

    def create_user(self, name: str, password: str, roles: Sequence[str] = ()) -> None:
        """Create a user with roles that exist."""
        if name in self.users:
            raise unexpected(f"user already exists: {name}")
        for role in roles:
            self._role(role)
        self.users[name] = User(hashed(password), list(roles))

    def create_role(self, name: str) -> None:
        """Create a role."""
        if name in self.roles:
            raise unexpected(f"role [{name}] already exists")
        self.roles.append(name)

    def grant(self, grant: Grant) -> None:
        """Let a role do something."""
        self._role(grant.role)
        if grant not in self.grants:
            self.grants.append(grant)

    def create_privilege_group(self, name: str, privileges: Sequence[str]) -> None:
        """Create a privilege group."""
        if name in self.privilege_groups:
            raise invalid(f"privilege group name [{name}] is defined by built in privilege groups or already exists")
        self.privilege_groups[name] = list(privileges)

    def _role(self, name: str) -> None:
        if name not in self.roles:
            raise unexpected("not found the role, maybe the role isn't existed or internal system error")

    def restore_rbac(self, users: dict[str, User], roles: Iterable[str], grants: Iterable[Grant], groups: dict[str, list[str]]) -> None:
        """Add a whole set; nothing of it may be there (``internal/rootcoord/meta_table.go``, CheckIfRBACRestorable)."""
        with self.lock:
            new_roles, new_grants = list(roles), list(grants)
            if self.profile.refuses_empty_rbac and not (users or new_roles or new_grants or groups):
                raise unexpected("rbac meta is empty")
            if problem := next(self._rbac_problems(users, new_roles, new_grants, groups), ""):
                raise (invalid if self.profile.rbac_invalid else unexpected)(problem)
            self.roles += new_roles
            self.privilege_groups.update(groups)
            self.grants += [grant for grant in new_grants if grant not in self.grants]
            self.users.update(users)

    def _rbac_problems(self, users: dict[str, User], roles: Sequence[str], grants: Iterable[Grant], groups: Iterable[str]) -> Iterator[str]:
        """Yield what stands against a set, in the order it is looked at."""
        yield from (f"role [{role}] already exists" for role in roles if role in self.roles)
        yield from (f"privilege group [{group}] already exists" for group in groups if group in self.privilege_groups)
        known = {*self.privilege_groups, *groups}
        for grant in grants:
            if grant.privilege == ANY:
                if self.profile.refuses_any_privilege:
                    yield self.profile.refuses_any_privilege
            elif grant.privilege not in known and not _PRIVILEGE.fullmatch(grant.privilege):
                yield f"privilege [{grant.privilege}] does not exist"
        for name, user in users.items():
            if name in self.users:
                yield f"user [{name}] already exists"
            yield from (f"role [{role}] does not exist" for role in user.roles if role not in {*self.roles, *roles})
