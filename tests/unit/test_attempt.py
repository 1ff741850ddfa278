"""What a run does about what is there under its backup's name: the whole table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.attempt import FAIL, IF_EXISTS, REPLACE, RESUME, SKIP, Action, Attempt, check_if_exists, decide
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupExists, ConfigError
from airflow_provider_milvus_backup.core.lease import Owner

ME = Owner("dag/run/task/-1", 0, 2)
EARLIER = replace(ME, attempt=1)
CLEARED = replace(ME, round=3, attempt=5)
OTHER = Owner("dag/other/task/-1", 0, 1)
NOBODY = Owner()


def decided(owner: Owner, if_exists: str, committed: str | None = None, attempt: Attempt | None = None, leftover: str = "") -> Action:
    return decide("name", "s3://bucket/backup", owner, if_exists, committed, attempt, leftover)


@pytest.mark.parametrize("if_exists", IF_EXISTS)
def test_where_nothing_is_a_backup_begins(if_exists: str) -> None:
    assert decided(ME, if_exists) is Action.BEGIN


@pytest.mark.parametrize("if_exists", IF_EXISTS)
def test_what_this_task_had_committed_is_returned_whatever_if_exists_says(if_exists: str) -> None:
    assert decided(ME, if_exists, "id", Attempt("id", EARLIER)) is Action.RETURN


@pytest.mark.parametrize("attempt", [None, Attempt("id", OTHER), Attempt("id", EARLIER), Attempt("another attempt, unfinished", CLEARED)])
@pytest.mark.parametrize("owner", [CLEARED, NOBODY])
def test_a_backup_that_is_finished_otherwise_is_left_to_if_exists(owner: Owner, attempt: Attempt | None) -> None:
    with pytest.raises(BackupExists, match=r"backup 'name' already exists in s3://bucket/backup"):
        decided(owner, FAIL, "id", attempt)
    assert decided(owner, SKIP, "id", attempt) is Action.RETURN
    assert decided(owner, RESUME, "id", attempt) is Action.RETURN
    assert decided(owner, REPLACE, "id", attempt) is Action.REPLACE


@pytest.mark.parametrize(("owner", "attempt"), [(ME, EARLIER), (CLEARED, EARLIER), (NOBODY, NOBODY)])
@pytest.mark.parametrize("if_exists", IF_EXISTS)
def test_an_unfinished_attempt_of_ones_own_is_resumed(owner: Owner, attempt: Owner, if_exists: str) -> None:
    assert decided(owner, if_exists, None, Attempt("id", attempt)) is Action.RESUME


@pytest.mark.parametrize(("owner", "attempt"), [(ME, OTHER), (ME, NOBODY), (NOBODY, OTHER)])
def test_an_unfinished_attempt_of_somebody_else_is_resumed_only_when_asked_for(owner: Owner, attempt: Owner) -> None:
    with pytest.raises(BackupExists, match="if_exists='resume'"):
        decided(owner, FAIL, None, Attempt("id", attempt))
    for if_exists in (RESUME, SKIP, REPLACE):
        assert decided(owner, if_exists, None, Attempt("id", attempt)) is Action.RESUME


@pytest.mark.parametrize("if_exists", IF_EXISTS)
def test_what_another_tool_has_left_is_never_touched(if_exists: str) -> None:
    with pytest.raises(BackupExists, match=r"'backup/name/binlogs/x' .* unfinished backup 'name' of another tool"):
        decided(ME, if_exists, None, None, "backup/name/binlogs/x")


@pytest.mark.parametrize("value", ["", "overwrite", "Fail", None, 1, ["fail"]])
def test_other_values_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match="is not one of fail, resume, skip, replace"):
        check_if_exists(value)  # type: ignore[arg-type]


@given(st.builds(Attempt, st.text(), st.builds(Owner, st.text(), st.integers(0, 2**31), st.integers(0, 2**31)), st.text()))
def test_an_attempt_survives_its_file(attempt: Attempt) -> None:
    try:
        content = attempt.to_json()
        content.decode().encode()
    except UnicodeError:
        return
    try:
        assert Attempt.from_json(content) == attempt
    except BackupDamaged as error:
        assert "not readable JSON" in str(error)  # noqa: PT017 (half a character)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "owner": {"round": "x"}}'])
def test_a_damaged_attempt_is_an_error_that_names_the_file(content: bytes) -> None:
    with pytest.raises(BackupDamaged, match=r"attempt\.json"):
        Attempt.from_json(content)
