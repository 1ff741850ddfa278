"""The runner of preflights: what fails keeps nothing else from running, and what could not be looked at is never a PASS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.checking import (
    FAIL,
    NEVER,
    PASS,
    SKIP,
    WARN,
    Check,
    Finding,
    Line,
    check_fail_on,
    check_skip,
    raise_for,
    result,
    run,
    status_of,
    told,
)
from airflow_provider_milvus_backup.core.errors import (
    AuthError,
    Cancelled,
    CheckFailed,
    ConfigError,
    MilvusBackupError,
    ServerUnreachable,
    StorageDenied,
    StorageError,
    WaitTimeout,
)
from airflow_provider_milvus_backup.core.preflight import NAMES, ONLY_RBAC, ONLY_RESTORES
from airflow_provider_milvus_backup.core.report import Reporter
from tests.unit.test_lease import Lines


def finds(status: str, message: str = "seen", remedy: str = "") -> Any:
    return lambda _: Finding(status, message, remedy)


def fails(error: Exception) -> Any:
    def look(_: object) -> Finding:
        raise error

    return look


def ran(*checks: Check[Any], skip: dict[str, str] | None = None, log: Lines | None = None) -> list[Line]:
    return run(checks, None, Reporter(log or Lines()), skip=skip)


def statuses(lines: list[Line]) -> dict[str, str]:
    return {line.name: line.status for line in lines}


def test_what_fails_keeps_only_what_needs_it_from_running_and_they_say_so() -> None:
    lines = ran(
        Check("connect", fails(ServerUnreachable("nobody is there")), remedy="start it"),
        Check("version", finds(PASS), ("connect",)),
        Check("read", finds(PASS), ("version",)),
        Check("bucket", finds(PASS)),
        Check("copy", finds(PASS), ("bucket", "read")),
    )
    assert [(line.name, line.status, line.message, line.remedy) for line in lines] == [
        ("connect", FAIL, "nobody is there", "start it"),
        ("version", SKIP, "not checked because connect failed", ""),
        ("read", SKIP, "not checked because version was not checked", ""),
        ("bucket", PASS, "seen", ""),
        ("copy", SKIP, "not checked because read was not checked", ""),
    ]


def test_a_warning_keeps_nothing_from_running() -> None:
    assert statuses(ran(Check("a", finds(WARN)), Check("b", finds(PASS), ("a",)))) == {"a": WARN, "b": PASS}


@pytest.mark.parametrize(("names", "left"), [(None, []), ("", []), ((), []), (" a , b,", ["a", "b"]), (["b"], ["b"])])
def test_what_to_leave_out_is_a_list_or_a_text_or_nothing(names: Any, left: list[str]) -> None:
    assert list(check_skip(names, ["a", "b"])) == left


@pytest.mark.parametrize(
    ("names", "said"), [(7, "skip 7 is neither a list of names"), ("c", "skip 'c' is not the name"), ([7], "skip 7 is not the name")]
)
def test_what_is_no_name_of_a_line_is_not_left_out(names: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_skip(names, ["a", "b"])


def test_a_line_that_looks_and_finds_nothing_to_look_at_is_a_skip_for_others_too() -> None:
    assert statuses(ran(Check("a", finds(SKIP)), Check("b", finds(PASS), ("a",)))) == {"a": SKIP, "b": SKIP}


def test_what_is_left_out_by_wish_is_not_looked_at_and_what_needs_it_is() -> None:
    lines = ran(Check("a", fails(StorageDenied("no"))), Check("b", finds(PASS), ("a",)), skip={"a": "left out, because"})
    assert [(line.status, line.message) for line in lines] == [(SKIP, "left out, because"), (PASS, "seen")]


@given(st.data())
def test_nothing_passes_whose_needs_have_not(data: st.DataObject) -> None:
    checks = []
    for number in range(data.draw(st.integers(1, 12))):
        needs = data.draw(st.lists(st.sampled_from([check.name for check in checks]), unique=True)) if checks else []
        outcome = data.draw(st.sampled_from([finds(PASS), finds(WARN), finds(FAIL), finds(SKIP), fails(StorageError("x"))]))
        checks.append(Check(str(number), outcome, tuple(needs)))
    lines = ran(*checks)
    found = statuses(lines)
    assert list(found) == [check.name for check in checks], "every line is there, in its order"
    for check in checks:
        stopped = any(found[need] in (FAIL, SKIP) for need in check.needs)
        assert not (stopped and found[check.name] != SKIP)
    assert status_of(lines) == (FAIL if FAIL in found.values() else WARN if WARN in found.values() else PASS)


def test_a_kill_stops_all_of_it_and_the_end_of_time_is_a_failure_of_each_line() -> None:
    with pytest.raises(Cancelled):
        ran(Check("a", fails(Cancelled("killed"))))
    assert statuses(ran(Check("a", fails(WaitTimeout("late"))), Check("b", finds(PASS)))) == {"a": FAIL, "b": PASS}


def test_a_mistake_of_the_package_is_not_taken_for_a_finding() -> None:
    with pytest.raises(ZeroDivisionError):
        ran(Check("a", fails(ZeroDivisionError())))


def test_lines_are_written_when_they_are_known_with_the_remedy_and_counted_in_the_end() -> None:
    log = Lines()

    def look(_: object) -> Finding:
        assert log.lines == ["PASS  first          seen"]
        return Finding(WARN, "slow", "buy another")

    ran(Check("first", finds(PASS)), Check("second.longer", look), log=log)
    assert log.lines == ["PASS  first          seen", "WARN  second.longer  slow. Remedy: buy another", "1 PASS, 1 WARN, 0 FAIL, 0 SKIP"]


def test_seconds_are_those_of_the_line() -> None:
    ticks = iter([10.0, 10.25, 20.0, 22.0])
    checks = (Check("a", finds(PASS)), Check("b", fails(StorageDenied("no"))), Check("c", finds(PASS), ("b",)))
    lines = run(checks, None, Reporter(Lines()), clock=lambda: next(ticks))
    assert [line.seconds for line in lines] == [0.25, 2.0, 0.0]


@pytest.mark.parametrize(
    ("errors", "retryable"),
    [
        ([], False),
        ([ServerUnreachable("away")], True),
        ([ServerUnreachable("away"), StorageError("busy")], True),
        ([ServerUnreachable("away"), AuthError("wrong")], False),
        ([StorageDenied("no")], False),
        ([ConfigError("wrong")], False),
    ],
)
def test_a_retry_is_worth_it_only_when_all_that_failed_may_pass(errors: list[MilvusBackupError], retryable: bool) -> None:
    lines = ran(Check("fine", finds(WARN)), *(Check(str(number), fails(error)) for number, error in enumerate(errors)))
    found = result(lines, more=1)
    assert (found["retryable"], found["more"]) == (retryable, 1)
    assert set(found["checks"][0]) == {"name", "status", "message", "remedy", "seconds"}


def test_a_fail_that_a_line_has_found_by_itself_does_not_pass() -> None:
    assert result(ran(Check("a", finds(FAIL))))["retryable"] is False


@pytest.mark.parametrize(
    ("found", "fail_on", "raised"),
    [
        ([PASS, SKIP], WARN, None),
        ([PASS, WARN], FAIL, None),
        ([PASS, FAIL, WARN], NEVER, None),
        ([PASS, FAIL, WARN], FAIL, "1 of 3 checks did not pass: 1 FAIL: seen"),
        ([PASS, FAIL, WARN], WARN, "2 of 3 checks did not pass: 1 FAIL: seen; 2 WARN: seen"),
        ([FAIL] * 7, FAIL, "7 of 7 checks did not pass: 0 FAIL: seen; 1 FAIL: seen; 2 FAIL: seen; 3 FAIL: seen; 4 FAIL: seen; …"),
    ],
)
def test_what_makes_a_preflight_fail(found: list[str], fail_on: str, raised: str | None) -> None:
    lines = ran(*(Check(str(number), finds(status)) for number, status in enumerate(found)))
    if raised is None:
        raise_for(result(lines), fail_on)
        return
    with pytest.raises(CheckFailed) as error:
        raise_for(result(lines), fail_on)
    assert str(error.value) == raised
    assert error.value.retryable is False


def test_the_error_of_a_preflight_has_the_remedy_too() -> None:
    lines = ran(Check("a", fails(ServerUnreachable("away")), remedy="look whether it runs"), Check("b", finds(FAIL)))
    with pytest.raises(CheckFailed) as error:
        raise_for(result(lines), FAIL)
    assert str(error.value) == "2 of 2 checks did not pass: a FAIL: away. Remedy: look whether it runs; b FAIL: seen"


def test_a_warning_among_what_may_pass_makes_a_retry_useless_where_warnings_count() -> None:
    found = result(ran(Check("a", fails(ServerUnreachable("away"))), Check("b", finds(WARN))))
    for fail_on, retryable in ((FAIL, True), (WARN, False)):
        with pytest.raises(CheckFailed) as error:
            raise_for(found, fail_on)
        assert error.value.retryable is retryable


def test_names_to_leave_out_and_the_status_that_fails_are_known_ones() -> None:
    for names in ("clocks, milvus.rest ,", ["clocks", "milvus.rest"]):
        assert list(check_skip(names, NAMES)) == ["clocks", "milvus.rest"]
    assert check_skip((), NAMES) == {}
    with pytest.raises(ConfigError, match=r"skip 'clock' is not the name of a check; the names are milvus\.connect, "):
        check_skip(["clock"], NAMES)
    with pytest.raises(ConfigError, match="fail_on 'fail' is not one of FAIL, WARN, NEVER"):
        check_fail_on("fail")
    assert [check_fail_on(value) for value in (FAIL, WARN, NEVER)] == [FAIL, WARN, NEVER]


def test_the_names_are_unique_and_needs_come_before_who_needs_them() -> None:
    from airflow_provider_milvus_backup.core.preflight import CHECKS

    assert len(set(NAMES)) == len(NAMES)
    assert {*ONLY_RESTORES, *ONLY_RBAC} <= set(NAMES)
    for place, check in enumerate(CHECKS):
        assert set(check.needs) <= set(NAMES[:place]), check.name


def test_numbers_of_each_status() -> None:
    assert told(ran(Check("a", finds(PASS)), Check("b", finds(FAIL)), Check("c", finds(PASS), ("b",)))) == "1 PASS, 0 WARN, 1 FAIL, 1 SKIP"


def test_the_page_has_every_line_in_its_order_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    assert tuple(re.findall(r"(?m)^\| `([a-z_.]+)` \|", page)) == NAMES
    for name in (*ONLY_RESTORES, *ONLY_RBAC):
        assert page.count(f"`{name}`") >= (2 if name in ONLY_RESTORES else 1)
