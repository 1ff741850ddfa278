"""What each level of verifying finds on a real S3; this is where the table of docs/verify.md comes from."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.plan import SKIP_FLUSH
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verification import BINLOGS, CHECKSUMS, LEVELS, OBJECTS, Verification
from airflow_provider_milvus_backup.core.verifying import verify
from tests.breaking.faulty_s3 import faulty_s3
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Lines, listing, location, moved
from tests.integration.damages import DAMAGES, OF_A_MANIFEST, Copy, flip, swap

if TYPE_CHECKING:
    from tests.integration.conftest import Zoo

ROOT = "of/damage"
NAME = "damage"
PAGE = Path(__file__).parents[2] / "docs" / "verify.md"
BEGIN, END = "<!-- what is found: begin -->\n", "<!-- what is found: end -->\n"
#: Set to anything, the page gets the table that the test has found; look at what has changed before it is committed.
WRITE = "WRITE_DAMAGE_TABLE"
ROT = "a bit flipped in the store, which lists the log as before"
ME = Owner("dag/run/verify/-1")


def copied(zoo: Zoo, variant: str) -> Copy:
    """Return a copy of the backup as we, or the official tool would have made it."""
    source, below = ObjectStore(zoo.cluster.backups), f"backup/{NAME}/"
    keys = [key[len(below) :] for key in listing(zoo.cluster.s3, A_BUCKET, below)]
    kept = [key for key in keys if variant == "ours" or not key.startswith("provider/")]
    files = {key: source.read(f"{below}{key}") for key in kept}
    return Copy(NAME, ObjectStore(location(zoo.cluster.s3, VAULT, f"{ROOT}/{variant}")), files).write_all()


@pytest.fixture(scope="module")
def both(zoo: Zoo) -> list[Copy]:
    """A small backup of two collections, with and without a manifest."""
    zoo.cluster.backup(NAME, [str(data.MANY.name), str(data.AUTO.name)], SKIP_FLUSH)
    return [copied(zoo, "ours"), copied(zoo, "official")]


def verified(copy: Copy, level: str, store: ObjectStore | None = None) -> Verification:
    return verify(store or copy.store, copy.name, ME, Reporter(Lines()), level=level)


# ---- the table ---------------------------------------------------------------------------------------------------------------------


def is_found(copy: Copy, level: str, segments: set[int], store: ObjectStore | None = None) -> bool:
    """Return whether a damage is found; what is found names just the segments that are damaged, and never the other collections."""
    found = verified(copy, level, store)
    if found.ok:
        return False
    assert set(found.damaged_segments) <= segments, [str(finding) for finding in found.findings]
    if copy.only_logs:
        assert set(found.damaged_segments) == segments, [str(finding) for finding in found.findings]
        owners = {log.key.split("/")[2] for log in copy.logs() if log.segment in segments}
        assert len(found.damage) == len(owners)
        assert len(found.intact) == 2 - len(owners)
    return True


def rotten(copy: Copy, level: str) -> bool:
    """Let the store give other bytes than it has listed: they are changed when they are asked for."""
    log = copy.log(102)

    def change(operation: str, path: str) -> None:
        if operation == "get" and path.endswith(log.key):
            copy.store.write(copy.at(log.key), flip(log.content, len(log.content) // 2))

    with copy.damaged(), faulty_s3(copy.store.endpoint, lambda *_: None) as proxy:
        proxy.before = change
        found = is_found(copy, level, {log.segment}, ObjectStore(moved(copy.store.location, proxy.endpoint_url)))
        copy.store.write(copy.at(log.key), log.content)
    return found


def row(name: str, both: list[Copy], damage: Callable[[Copy], set[int]] | None) -> str:
    cells = []
    for copy in both:
        for level in LEVELS:
            if damage is None:
                cells.append(rotten(copy, level))
                continue
            with copy.damaged():
                cells.append(is_found(copy, level, damage(copy)) if copy.manifest or damage not in OF_A_MANIFEST else None)
    return f"| {name} | " + " | ".join({None: "", True: "found", False: "–"}[cell] for cell in cells) + " |"  # noqa: RUF001


def test_the_page_says_which_level_finds_what(both: list[Copy]) -> None:
    levels, bare = (" | ".join(f"`{level}`{said}" for level in LEVELS) for said in ("", ", no manifest"))
    lines = [f"| what is wrong | {levels} | {bare} |", "|---|" + "---|" * 6]
    lines += [row(name, both, damage) for name, damage in {**DAMAGES, ROT: None}.items()]
    table, page = "\n".join(lines) + "\n", PAGE.read_text()
    before, shown, after = page.partition(BEGIN)[0], page.partition(BEGIN)[2].partition(END)[0], page.partition(END)[2]
    if os.environ.get(WRITE):
        PAGE.write_text(before + BEGIN + table + END + after)
    else:
        assert shown == table, f"run this test with {WRITE}=1, and look at what has changed"


# ---- any damage --------------------------------------------------------------------------------------------------------------------


def test_any_single_damage_of_any_log_is_found_as_the_table_says(both: list[Copy]) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for number in range(24):
        copy = both[number % 2]
        log, kind = chance.choice(copy.logs()), ("flip", "cut", "remove", "swap")[number // 2 % 4]
        said, segments, levels = f"seed {seed}: {kind} {log.key}", {log.segment}, [OBJECTS]
        with copy.damaged():
            if kind == "flip":
                copy.put(log.key, flip(log.content, chance.randrange(len(log.content)), chance.randrange(8)))
                levels = [OBJECTS] if copy.manifest else []
            elif kind == "cut":
                copy.put(log.key, log.content[: chance.randrange(len(log.content))])
            elif kind == "remove":
                copy.remove(log.key)
            else:
                # Without a manifest nothing tells the delta logs of two collections apart but their sizes.
                fits = lambda one: (one.segment, one.field) != (log.segment, log.field) and (log.field, one.field) != (None, None)  # noqa: B023, E731
                other = chance.choice([one for one in copy.logs() if fits(one)])
                segments = swap(copy, log, other)
                levels = [OBJECTS] if copy.manifest or len(log.content) != len(other.content) else [BINLOGS]
            for level in (*levels, *([CHECKSUMS] if copy.manifest else []), *([BINLOGS] if kind != "flip" or copy.manifest else [])):
                assert is_found(copy, level, segments), f"{said}, level {level}"
