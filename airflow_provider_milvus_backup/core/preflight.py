"""The preflight: everything that can be known before a backup or a restore fails on it. ``docs/check.md`` shows the lines to users.

Nothing of Milvus's is changed; what is written are probes, see :mod:`.check_probes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import check_milvus, check_probes, check_storage, checking
from .capabilities import Capability
from .check_subject import Subject
from .checking import Check
from .errors import ConfigError
from .names import parse_selection
from .patience import Patience
from .report import Reporter
from .settings import Settings

#: All lines, in their order; what only a restore needs is named below.
CHECKS: tuple[Check[Subject], ...] = (
    *check_milvus.CHECKS,
    *check_storage.MILVUS,
    *check_storage.BACKUPS,
    *check_probes.BACKUPS,
    check_probes.STAGING,
    check_storage.CLOCKS,
)
NAMES = tuple(check.name for check in CHECKS)
ONLY_RESTORES = ("milvus.restore_privileges", "restore.staging")
ONLY_RBAC = ("milvus.rbac",)


def check(
    settings: Settings,
    reporter: Reporter,
    patience: Patience,
    collections: str | Sequence[str] | None = None,
    *,
    include_restore: bool = True,
    include_rbac: bool = False,
    skip: str | Iterable[str] | None = (),
) -> dict[str, Any]:
    """Look at both ends, write a line about each thing, and return all of them.

    :param collections: what would be backed up, as a backup takes it
    :param include_restore: also what only a restore needs
    :param include_rbac: also what users and roles need
    :param skip: names of lines that are left out
    :return: ``{"status", "retryable", "server_version", "capabilities": {name: bool}, "checks": [{"name", "status", "message", "remedy",
        "seconds"}]}``; what failed is in it, and not raised
    :raises ConfigError: the selection cannot be read, a switch is neither True nor False, or ``skip`` has a name that is none
    :raises Cancelled: the run was asked to stop
    """
    left_out = checking.check_skip(skip, NAMES)
    for switch, wanted, names in (("include_restore", include_restore, ONLY_RESTORES), ("include_rbac", include_rbac, ONLY_RBAC)):
        if not isinstance(wanted, bool):  # a text is true, whatever it says
            raise ConfigError(f"{switch} {wanted!r} is neither True nor False")
        if not wanted:
            left_out |= dict.fromkeys(names, f"left out, because {switch} is off")
    subject = Subject.open(settings, reporter, patience, parse_selection(collections))
    subject.left_out, server = frozenset(left_out), subject.server
    try:
        lines = checking.run(CHECKS, subject, reporter, skip=left_out, lines=subject.lines, patience=patience)
        known = "version" in vars(server)  # it has answered, whichever line has asked
        return checking.result(
            lines,
            server_version=server.version if known else "",
            capabilities={one.name.lower(): server.can(one) for one in Capability} if known else {},
        )
    finally:
        check_probes.remove(subject)
        server.close()
