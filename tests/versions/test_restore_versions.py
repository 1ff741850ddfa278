"""A backup goes into a Milvus of the same line or a newer one, never unasked into an older one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import UnsupportedFormat, UnsupportedServer
from demo import servers
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .restoring import CREATE, NAME, creates, deletes
from .worlds import World, world

ROWS: dict[str, dict[str, Any]] = {}


def line(version: str) -> tuple[int, ...]:
    """Return the line that a version belongs to."""
    return tuple(map(int, version.split(".")[:2]))


FORWARD = [(source, target) for source in PROFILES for target in PROFILES if line(source) <= line(target)]
BACKWARD = [(source, target) for source in PROFILES for target in PROFILES if line(source) > line(target)]


@pytest.fixture(scope="module")
def every(s3: servers.S3Server) -> Iterator[Mapping[str, World]]:
    """A Milvus of each version, with a backup."""
    with ExitStack() as running:
        worlds = {}
        for number, version in enumerate(PROFILES, 1):
            worlds[version] = running.enter_context(world(version, s3, first_id=number * 100_000_000_000_000_000))
            ROWS[version] = deletes(worlds[version])
            worlds[version].backup()
        yield worlds


def restored(every: Mapping[str, World], source: str, target: str, **options: Any) -> dict[str, Any]:
    """Restore a backup of one version into another and return the rows."""
    suffix = f"_of_{source.replace('.', '_')}"
    every[source].restore_into(every[target], suffix=suffix, **options)
    return dict(every[target].model.rows((NAME[0], NAME[1] + suffix)))


@pytest.mark.parametrize(("source", "target"), FORWARD)
def test_every_row_arrives_in_the_same_line_and_in_newer_ones(every: Mapping[str, World], source: str, target: str) -> None:
    before = len(creates(every[target]))
    assert restored(every, source, target) == ROWS[source]
    bodies = creates(every[target])[before:]
    assert bodies
    wanted = {"2"} if PROFILES[source].storage_version == 2 else {None}
    assert {body["options"].get("storage_version") for body in bodies if "backup" in body["options"]} == wanted
    assert any("l0_import" in body["options"] for body in bodies) == (line(target) < (3, 0))


@pytest.mark.parametrize(("source", "target"), BACKWARD)
def test_an_older_line_is_refused_with_both_versions_named(every: Mapping[str, World], source: str, target: str) -> None:
    there = every[target].model.databases["default"].collections
    collections, asked = set(there), every[target].server.requests[CREATE]
    with pytest.raises(
        UnsupportedServer, match=rf"was taken from Milvus v{source}, and this is the older Milvus v{target}.*allow_downgrade=True"
    ):
        restored(every, source, target)
    assert set(there) == collections
    assert every[target].server.requests[CREATE] == asked


@pytest.mark.parametrize(("source", "target"), [("2.5.4", "2.4.24"), ("2.5.10", "2.4.5"), ("3.0.0", "2.6.4"), ("3.0.1", "2.6.20")])
def test_whoever_knows_that_it_works_may_go_back(every: Mapping[str, World], source: str, target: str) -> None:
    assert restored(every, source, target, allow_downgrade=True) == ROWS[source]


@pytest.mark.parametrize("target", ["2.4.24", "2.5.10"])
def test_storage_version_2_is_refused_even_then(every: Mapping[str, World], target: str) -> None:
    with pytest.raises(
        UnsupportedServer, match=rf"storage version 2, which Milvus v{target} cannot read. Restore into Milvus 2\.6\.0 or newer"
    ):
        restored(every, "2.6.20", target, allow_downgrade=True)
    assert set(every[target].model.databases["default"].collections).isdisjoint({"docs_of_2_6_20"})


def test_a_development_build_takes_backups_of_its_line(every: Mapping[str, World], s3: servers.S3Server) -> None:
    with world(replace(PROFILES["2.6.20"], version="2.6-20261104-abcdef1"), s3) as target:  # type: ignore[arg-type]
        every["2.6.20"].restore_into(target, suffix="_back")
        assert target.model.rows(("default", "docs_back")) == ROWS["2.6.20"]
        with pytest.raises(UnsupportedServer, match=r"was taken from Milvus v3\.0\.1, and this is the older Milvus 2\.6-20261104-abcdef1"):
            every["3.0.1"].restore_into(target, suffix="_newer")


def test_segments_behind_manifests_are_refused_when_they_are_backed_up(s3: servers.S3Server) -> None:
    with world("3.0.1", s3) as source:
        source.model.create_collection(NAME, shapes.schema(NAME[1]))
        source.model.plant_v3(NAME, [shapes.row(1)])
        with pytest.raises(UnsupportedFormat, match=r"storage version 3"):
            source.backup()
