"""Running a preflight: every line looks at one thing, and says PASS, WARN or FAIL with the remedy. Knows nothing of Milvus or S3.

A line that fails never keeps independent ones from running. One that needs what has failed is a SKIP that says so; it is never a PASS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from .errors import Cancelled, CheckFailed, ConfigError, MilvusBackupError
from .patience import Patience
from .report import Reporter

PASS, WARN, FAIL, SKIP = "PASS", "WARN", "FAIL", "SKIP"
#: From which status on a preflight has failed; with ``NEVER`` it is only told.
NEVER = "NEVER"
FAIL_ON: Mapping[str, tuple[str, ...]] = {FAIL: (FAIL,), WARN: (FAIL, WARN), NEVER: ()}

S = TypeVar("S")


class Finding(NamedTuple):
    """What one look has shown; ``remedy`` is what to do about it, empty for a PASS."""

    status: str
    message: str
    remedy: str = ""


class Check(NamedTuple, Generic[S]):
    """One line of a preflight.

    :param name: part of the contract with whoever reads the result by machine
    :param look: returns what it has found; what it raises is a FAIL
    :param needs: names of earlier lines without which looking makes no sense
    :param remedy: what to do where ``look`` raises
    """

    name: str
    look: Callable[[S], Finding]
    needs: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the result; ``passing`` tells of a FAIL whether it may be gone in a moment."""

    name: str
    status: str
    message: str
    remedy: str = ""
    seconds: float = 0.0
    passing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON: name, status, message, remedy, seconds."""
        return {key: getattr(self, key) for key in ("name", "status", "message", "remedy", "seconds")}


def check_skip(names: str | Iterable[str] | None, known: Sequence[str]) -> dict[str, str]:
    """Return the lines to leave out, with the reason; raises ConfigError for a name that no line has.

    :param names: a list, or a text with commas
    """
    if names is not None and not isinstance(names, Iterable):
        raise ConfigError(f"skip {names!r} is neither a list of names nor a text with commas")
    wanted = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else list(names or ())
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigError(f"skip {unknown[0]!r} is not the name of a check; the names are {', '.join(known)}")
    return dict.fromkeys(wanted, "left out, because skip names it")


def check_fail_on(value: str) -> str:
    """Return from which status on a preflight fails; raises ConfigError for what is none of ``FAIL``, ``WARN`` and ``NEVER``."""
    if value not in FAIL_ON:
        raise ConfigError(f"fail_on {value!r} is not one of {', '.join(FAIL_ON)}")
    return value


def run(
    checks: Sequence[Check[S]],
    subject: S,
    reporter: Reporter,
    *,
    skip: Mapping[str, str] | None = None,
    lines: list[Line] | None = None,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Line]:
    """Run all checks in their order, write each line as soon as it is known, and return them.

    :param skip: lines that are left out, and why; what needs them is looked at all the same
    :param lines: where to put the lines, for checks that read the ones before them
    :param patience: what ends it early: a kill all of it, and the deadline each line that is left
    :param clock: seconds, of any origin
    :raises Cancelled: the run was asked to stop
    """
    found, patience = [] if lines is None else lines, patience or Patience()
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        line = _line(check, subject, {one.name: one for one in found}, skip or {}, patience, clock)
        found.append(line)
        write = reporter.warn if line.status in (WARN, FAIL) else reporter.line
        write(f"{line.status:4}  {line.name:{width}}  {line.message}" + (f". Remedy: {line.remedy}" if line.remedy else ""))
    reporter.line(told(found))
    return found


def _line(
    check: Check[S], subject: S, earlier: Mapping[str, Line], skip: Mapping[str, str], patience: Patience, clock: Callable[[], float]
) -> Line:
    if check.name in skip:
        return Line(check.name, SKIP, skip[check.name])
    for need in check.needs:
        if earlier[need].status == FAIL or (earlier[need].status == SKIP and need not in skip):
            return Line(check.name, SKIP, f"not checked because {need} {'failed' if earlier[need].status == FAIL else 'was not checked'}")
    started, passing = clock(), False
    try:
        patience.check(f"{check.name} was about to be checked")
        finding = check.look(subject)
    except Cancelled:
        raise
    except MilvusBackupError as error:
        finding, passing = Finding(FAIL, str(error), check.remedy), error.retryable
    return Line(check.name, finding.status, finding.message, finding.remedy, round(clock() - started, 3), passing)


def status_of(lines: Iterable[Line]) -> str:
    """Return the worst status: FAIL, WARN or PASS. What was not checked counts for nothing: it is there because of another line."""
    there = {line.status for line in lines}
    return next((status for status in (FAIL, WARN) if status in there), PASS)


def told(lines: Sequence[Line]) -> str:
    """Return ``18 PASS, 1 WARN, 0 FAIL, 0 SKIP``."""
    return ", ".join(f"{sum(line.status == status for line in lines)} {status}" for status in (PASS, WARN, FAIL, SKIP))


def result(lines: Sequence[Line], **more: Any) -> dict[str, Any]:
    """Return the result as JSON: status, retryable, ``more``, and the checks.

    ``retryable``: something failed, and all that failed may be gone in a moment without anybody changing anything.
    """
    failed = [line for line in lines if line.status == FAIL]
    retryable = bool(failed) and all(line.passing for line in failed)
    return {"status": status_of(lines), "retryable": retryable, **more, "checks": [line.to_dict() for line in lines]}


def raise_for(found: Mapping[str, Any], fail_on: str) -> None:
    """Raise CheckFailed when something has failed.

    :param found: what :func:`result` returned
    :param fail_on: see :data:`FAIL_ON`
    """
    wrong = [one for one in found["checks"] if one["status"] in FAIL_ON[fail_on]]
    if wrong:
        some = "; ".join(map(_said, wrong[:5])) + ("; …" if len(wrong) > 5 else "")
        passing = found["retryable"] and all(one["status"] == FAIL for one in wrong)
        raise CheckFailed(f"{len(wrong)} of {len(found['checks'])} checks did not pass: {some}", retryable=passing)


def _said(one: Mapping[str, Any]) -> str:
    return f"{one['name']} {one['status']}: {one['message']}" + (f". Remedy: {one['remedy']}" if one["remedy"] else "")
