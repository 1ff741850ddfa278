"""What a drill says about itself: beside the backup, to the next task, in the log and in the error."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.catalog_entry import MAX_BYTES, read_drilled
from airflow_provider_milvus_backup.core.drill_checks import CheckResult
from airflow_provider_milvus_backup.core.drill_report import DrillReport
from airflow_provider_milvus_backup.core.drilling import Stopwatch
from airflow_provider_milvus_backup.core.report import Reporter
from tests.integration.clusters import Lines

WHEN = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SECONDS = {"plan": 1.0, "create": 0.5, "stage": 2.25, "import": 100.0, "load": 6.0, "check": 0.25}
GOOD = CheckResult("default.a", "rows", True, "7", "7")
BAD = CheckResult("default.a", "schema", False, "that of the backup", "field 'x' is missing")


def report(*results: CheckResult, **changes: Any) -> DrillReport:
    given: dict[str, Any] = {"rows": {"default.a": 7}, "server_version": "v2.5.10", "task": "dag/run/drill/-1", "whole": True}
    return DrillReport("nightly", "an-id", seconds=SECONDS, results=list(results), **{**given, **changes})


def test_the_recovery_time_is_all_phases_together_and_the_catalog_reads_what_is_written() -> None:
    content = report(GOOD, max_seconds=120.0).to_json(WHEN)
    assert json.loads(content) == {
        "version": 1,
        "backup_id": "an-id",
        "time": "2026-11-22T12:00:00+00:00",
        "ok": True,
        "seconds": 110.0,
        "max_seconds": 120.0,
        "phases": SECONDS,
        "whole": True,
        "collection_count": 1,
        "collections": [{"name": "default.a", "rows": 7}],
        "checks": 1,
        "failed": [],
        "error": "",
        "server_version": "v2.5.10",
        "task": "dag/run/drill/-1",
    }
    assert read_drilled(content, "an-id") == {"time": "2026-11-22T12:00:00+00:00", "ok": True, "seconds": 110.0, "collections": None}
    told = read_drilled(report(BAD, whole=False).to_json(WHEN), "an-id") or {}
    assert (told["ok"], told["collections"]) == (False, ["default.a"])


def test_a_failed_check_a_late_recovery_and_a_failed_restore_are_not_ok() -> None:
    assert report(GOOD).ok
    assert not report(GOOD, BAD).ok
    assert report(GOOD, max_seconds=110.0).ok
    assert not report(GOOD, max_seconds=100.0).ok
    failed = report(error="BackupDamaged: default.a: 1 objects are missing", rows={}, max_seconds=1.0)
    assert (failed.ok, failed.late, json.loads(failed.to_json(WHEN))["error"]) == (False, 0.0, failed.error)


def test_the_error_names_every_failed_check_and_by_how_much_it_was_late() -> None:
    assert report(GOOD, BAD, max_seconds=60.0).problem() == (
        "the drill of backup 'nightly' failed: default.a: schema: expected that of the backup, found field 'x' is missing; the recovery "
        "took 1 min 50 s, which is 50 s more than the 1 min 00 s of max_seconds. What it had restored is dropped again"
    )
    assert "and 5 more" not in report(*[BAD] * 20).problem()
    assert "; 5 more checks. What it had" in report(*[BAD] * 25).problem()


def test_the_log_says_what_was_recovered_and_what_it_took() -> None:
    assert report(GOOD, BAD).line() == (
        "recovered 1 collection with 7 rows of backup 'nightly' in 1 min 50 s (plan 1.0 s, create 0.5 s, stage 2.2 s, import 1 min 40 s, "
        "load 6.0 s, check 0.2 s); 1 of 2 checks passed"
    )


def test_the_log_does_not_tell_of_a_recovery_that_failed() -> None:
    assert report(error="RowsMissing: job 7", rows={}).line() == (
        "backup 'nightly' could not be recovered, which was clear after 1 min 50 s: RowsMissing: job 7"
    )


def test_a_backup_of_many_collections_stays_small() -> None:
    rows = {f"database.{'c' * 200}{number}": number for number in range(5000)}
    many = report(*[BAD] * 5000, rows=rows)
    assert len(many.to_json(WHEN)) < MAX_BYTES
    assert len(json.loads(many.to_json(WHEN))["collections"]) == 1000
    assert len(json.dumps(many.to_dict())) < 48 * 1024
    assert many.to_dict()["rows"] == sum(range(5000))
    assert (many.to_dict()["collection_count"], many.to_dict()["checks"]) == (5000, 5000)


def test_what_is_staged_is_counted_once_and_not_as_creating() -> None:
    log = Lines()
    watch = Stopwatch(Reporter(log))
    with watch.phase("Create and submit"), watch.part("Stage"):
        watch.line("said")
    assert log.lines == ["Create and submit", "said"]
    watch.seconds = {"Choose": 1.0, "Plan": 2.0, "Create and submit": 5.0, "Stage": 3.0, "Import": 4.0, "Check": 0.5, "Clean up": 9.0}
    assert watch.phases() == {"plan": 3.0, "create": 2.0, "stage": 3.0, "import": 4.0, "load": 0.0, "check": 0.5}


def test_a_phase_that_fails_is_counted_too() -> None:
    watch = Stopwatch(Reporter(Lines()))
    with pytest.raises(RuntimeError), watch.phase("Import"):
        raise RuntimeError
    assert watch.seconds.keys() == {"Import"}
