"""Deleted rows never come back and re-inserted ones stay, whatever happened to a collection before its backup and wherever it goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.histories import (
    FLUSHING,
    LATER,
    PAIRS,
    SOURCE,
    STEPS,
    TARGET,
    VERSIONS,
    WAYS,
    WRITES,
    YEAR,
    History,
    Step,
    Way,
    contents,
    copied,
    flushed,
    histories,
    jobs_for,
    key_of,
    lived,
    pass_time,
    planned,
    restored,
    run,
    take,
)
from tests.unit.test_fuzz_readers import FUZZ


@pytest.mark.parametrize(("version", "newer"), PAIRS)
def test_a_restored_collection_has_the_rows_of_its_source_and_no_others(version: str, newer: str) -> None:
    @settings(FUZZ, max_examples=30)
    @given(histories(version), WAYS)
    def check(history: History, way: Way) -> None:
        source = lived(history, version)
        take(source, SOURCE, FLUSHING)
        plan = planned(source)
        target = restored(plan, copied(plan, source), newer, way)
        assert contents(target, TARGET) == contents(source, SOURCE)
        if not target.profile.commit_ts:
            assert target.rows(TARGET) == source.rows(SOURCE)

    check()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_restored_collection_lives_on_and_is_restored_again(version: str) -> None:
    @settings(FUZZ, max_examples=40)
    @given(histories(version), st.sampled_from(LATER[version]), st.lists(STEPS, max_size=6), WAYS)
    def check(history: History, newer: str, steps: list[Step], way: Way) -> None:
        source = lived(history, version)
        take(source, SOURCE, FLUSHING)
        plan = planned(source)
        first = restored(plan, copied(plan, source), newer, way)
        for step in (*steps, FLUSHING):
            take(first, TARGET, step)
        again = planned(first, TARGET)
        second = restored(again, copied(again, first), newer, way, years=2)
        assert contents(second, TARGET) == contents(first, TARGET)

    check()


@pytest.mark.parametrize("version", VERSIONS)
def test_appending_leaves_what_was_there_and_brings_the_rows_of_the_source(version: str) -> None:
    @settings(FUZZ, max_examples=60)
    @given(st.data(), st.sampled_from(LATER[version]), st.sampled_from((-1, 1)), WAYS)
    def check(data: st.DataObject, newer: str, years: int, way: Way) -> None:
        history = data.draw(histories(version), label="history of the source")
        source = lived(history, version)
        take(source, SOURCE, FLUSHING)
        steps = data.draw(st.lists(WRITES, max_size=10), label="history of the target")
        target = lived(History(steps, newer, history.partitions, way.shards, history.text_keys), newer, TARGET, years=years)
        before, wanted = contents(target, TARGET), contents(source, SOURCE)
        plan = planned(source)
        pass_time(target, 2 * YEAR)
        run(target, jobs_for(plan, copied(plan, source), target, way, append=True), way)
        after = contents(target, TARGET)
        assert before <= after
        if years > 0 and not target.profile.commit_ts:
            # Imported rows keep their time, so what the target has deleted since then stays deleted.
            deleted = {pk for step in steps if step.verb in ("delete", "upsert") for pk in step.pks}
            assert after - before <= wanted
            assert {row for row in wanted if key_of(row) not in deleted} <= set(after)
        else:
            assert after - before == wanted

    check()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_restore_that_is_cut_at_the_flush_has_the_rows_of_that_moment(version: str) -> None:
    """Another writer's flush may bring rows and deletes into the backup that are later than its own flush."""

    @settings(FUZZ, max_examples=40)
    @given(histories(version), st.sampled_from(LATER[version]), st.lists(WRITES, max_size=6), WAYS)
    def check(history: History, newer: str, later: list[Step], way: Way) -> None:
        source = lived(history, version)
        flush_ts = flushed(source, SOURCE)
        wanted = contents(source, SOURCE)
        for step in (*later, FLUSHING):
            take(source, SOURCE, step)
        plan = planned(source, flush_ts=flush_ts)
        target = restored(plan, copied(plan, source), newer, way, cut=True)
        assert contents(target, TARGET) == wanted

    check()
