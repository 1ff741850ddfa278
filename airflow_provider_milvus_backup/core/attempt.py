"""Whose attempt at a backup is there, and what a further run under the same name does about it: pure functions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum

from .errors import BackupExists, ConfigError
from .jsonreader import Node
from .lease import Owner

ATTEMPT_FILE = "attempt.json"
ATTEMPT_VERSION = 1

FAIL, RESUME, SKIP, REPLACE = "fail", "resume", "skip", "replace"
IF_EXISTS = (FAIL, RESUME, SKIP, REPLACE)


class Action(Enum):
    """What a run does about what is there under its name."""

    BEGIN = "begin"
    #: Go on with an unfinished attempt.
    RESUME = "resume"
    #: Return the summary of the backup that is there.
    RETURN = "return"
    #: Make a new backup beside the finished one, which is removed after the commit.
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt that wrote ``provider/attempt.json``: the newest one under this name, finished or not."""

    backup_id: str
    owner: Owner
    #: The id of the finished backup that it replaces, empty when there is none.
    replaces: str = ""

    def to_json(self) -> bytes:
        """Return the attempt as JSON."""
        return json.dumps({"version": ATTEMPT_VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Attempt:
        """Return what :meth:`to_json` wrote; raises BackupDamaged for anything else."""
        root = Node.parse(content, ATTEMPT_FILE)
        if root.integer("version") != ATTEMPT_VERSION:
            raise root.wrong("version", str(ATTEMPT_VERSION))
        owner = Node(root.value.get("owner"), f"{ATTEMPT_FILE}.owner")
        return cls(
            root.string("backup_id"),
            Owner(owner.string("identity"), owner.integer("round"), owner.integer("attempt")),
            root.string("replaces"),
        )


def check_if_exists(if_exists: str) -> None:
    """Raise ConfigError for a value that is not one of ``fail``, ``resume``, ``skip``, ``replace``."""
    if if_exists not in IF_EXISTS:
        raise ConfigError(f"if_exists {if_exists!r} is not one of {', '.join(IF_EXISTS)}")


def decide(name: str, place: str, owner: Owner, if_exists: str, committed: str | None, attempt: Attempt | None, leftover: str) -> Action:
    """Return what to do about what is there under a name.

    =====================================  =========================================================================================
    finished, by this try or one before    return its summary: the task had committed and died before it could say so
    finished otherwise                     ``fail``: BackupExists; ``skip`` and ``resume``: return its summary; ``replace``: replace
    unfinished, of the same task instance  resume
    unfinished, of somebody else           ``fail``: BackupExists; otherwise resume
    unfinished, of another tool            BackupExists
    nothing                                begin
    =====================================  =========================================================================================

    :param place: where backups are, for messages
    :param committed: the id of the finished backup, None when there is none
    :param attempt: the newest attempt of ours, None when there is none
    :param leftover: the key of some object that is there, empty when there is none
    """
    if committed is not None:
        if attempt and attempt.backup_id == committed and owner.identity and _same_round(attempt.owner, owner):
            return Action.RETURN
        if if_exists == FAIL:
            raise BackupExists(
                f"backup {name!r} already exists in {place}; choose another name or delete it first, or say if_exists='skip' (keep it) "
                "or 'replace' (make it anew)"
            )
        return Action.REPLACE if if_exists == REPLACE else Action.RETURN
    if attempt is not None:
        if attempt.owner.identity != owner.identity and if_exists == FAIL:
            raise BackupExists(
                f"backup {name!r} in {place} was begun by {attempt.owner} and not finished; choose another name, or go on with it by "
                "if_exists='resume'"
            )
        return Action.RESUME
    if leftover:
        raise BackupExists(
            f"{leftover!r} in {place} belongs to an unfinished backup {name!r} of another tool; "
            "choose another name, or delete those objects when that tool no longer runs"
        )
    return Action.BEGIN


def _same_round(one: Owner, other: Owner) -> bool:
    return (one.identity, one.round) == (other.identity, other.round)
