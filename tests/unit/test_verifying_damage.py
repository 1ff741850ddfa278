"""Which level of a verification finds what damage, and what it names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import manifest as manifests
from airflow_provider_milvus_backup.core import raw_schema
from airflow_provider_milvus_backup.core.digests import PartsMd5
from airflow_provider_milvus_backup.core.errors import BackupDamaged
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.verification import BINLOGS, CHECKSUMS, LEVELS, OBJECTS
from benchmarks.collection import BACKUPS
from tests.unit.test_lease import Lines
from tests.unit.verified_backups import ID, NAME, VerifiedStore, kinds, serving, verified, write

KEY = "binlogs/insert_log/10/11/13/13/100/13100"
DELTA = "binlogs/delta_log/10/11/12/12/12900"
SCHEMAS = "provider/schemas.json"
MANIFEST, FULL, MARK = "provider/manifest.json", "meta/full_meta.json", "meta/backup_meta.json"
VERIFIED = f"{BACKUPS}/{NAME}/provider/verified.json"


def stored(served: Any) -> dict[str, Any]:
    return dict(json.loads(served.content("provider/verified.json")))


# ---- damage -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_missing_or_cut_off_is_found_at_every_level(level: str, manifest: bool) -> None:
    with serving(manifest=manifest) as (store, served):
        served.remove(KEY)
        served.change(DELTA, served.content(DELTA)[:-1])
        found = verified(store, level)
        expected = [("missing", KEY), ("size", DELTA)]
        if manifest:
            assert sorted(kinds(found)) == sorted(expected)
        assert set(expected) <= set(kinds(found))
        assert found.damaged_segments == [12, 13]
        (damage,) = found.damage
        assert (damage.collection, damage.segments, damage.of_segments, damage.rows, damage.of_rows) == ("default.c10", 2, 4, 6, 9)
        assert (damage.partitions, found.intact) == (["p11"], ["default.c20"])


@pytest.mark.parametrize(("manifest", "level", "found"), [(True, CHECKSUMS, True), (False, CHECKSUMS, True), (True, OBJECTS, False)])
def test_a_bit_that_rots_is_found_where_the_content_is_read(manifest: bool, level: str, found: bool) -> None:
    with serving(manifest=manifest) as (store, served):
        served.rot(KEY)
        assert kinds(verified(store, level)) == ([("content", KEY)] if found else [])


@pytest.mark.parametrize("manifest", [True, False])
def test_rot_is_found_where_etags_are_written_in_capitals(manifest: bool) -> None:
    with serving(capitals=True, manifest=manifest) as (store, served):
        assert served.etag(KEY).isupper()
        served.rot(KEY)
        assert kinds(verified(store, CHECKSUMS)) == [("content", KEY)]
        served.change(KEY, served.content(KEY)[:-1] + b"!", etag=served.etag(KEY))
        assert kinds(verified(store, CHECKSUMS)) == [("content", KEY)]


def test_rot_is_found_by_a_checksum_where_etags_prove_nothing() -> None:
    with serving(opaque=True, checksums=True) as (store, served):
        served.rot(KEY)
        (finding,) = verified(store, CHECKSUMS).findings
        assert (finding.kind, finding.key, finding.segment_id) == ("content", KEY, 13)
        assert "crc64nvme:" in finding.detail


def test_objects_that_changed_places_are_found_by_the_listing_of_ours_and_by_what_they_say_of_themselves() -> None:
    for manifest, expected in ((True, {OBJECTS: "changed"}), (False, {OBJECTS: "", CHECKSUMS: "", BINLOGS: "binlog"})):
        with serving(manifest=manifest) as (store, served):
            one, other = served.content(KEY), served.content(KEY.replace("/100/13100", "/101/13101"))
            served.change(KEY, other)
            served.change(KEY.replace("/100/13100", "/101/13101"), one)
            for level, kind in expected.items():
                assert {found for found, _ in kinds(verified(store, level))} == ({kind} - {""}), level


def test_what_was_written_again_with_the_same_content_is_right_when_it_was_read() -> None:
    with serving() as (store, served):
        # As after a copy to another bucket, in parts.
        served.change(KEY, served.content(KEY), etag=f"{'0' * 32}-1")
        assert kinds(verified(store)) == [("changed", KEY)]
        assert verified(store, CHECKSUMS).findings == []


def test_an_object_that_a_restore_would_import_too_is_damage_and_one_beside_the_segments_is_not() -> None:
    with serving() as (store, served):
        log = Lines()
        served.put(f"{BACKUPS}/{NAME}/binlogs/insert_log/10/11/99/99/0/1", b"x")
        assert verified(store, log=log).ok
        assert any("binlogs/insert_log/10/11/99/99/0/1" in line and "no part of the backup" in line for line in log.lines)
        stray = "binlogs/insert_log/10/11/13/13/100/777"
        served.put(f"{BACKUPS}/{NAME}/{stray}", b"x")
        found = verified(store)
        assert (kinds(found), found.damaged_segments) == ([("extra", stray)], [13])


@pytest.mark.parametrize("manifest", [True, False])
def test_rows_that_are_not_those_of_the_meta_are_found_and_the_meta_is_what_is_blamed_if_it_was_changed(manifest: bool) -> None:
    with serving(manifest=manifest) as (store, served):
        for file in (FULL, "meta/segment_meta.json"):
            served.change(file, served.content(file).replace(b'"num_of_rows":3', b'"num_of_rows":4'))
        shallow, deep = verified(store), verified(store, BINLOGS)
        changed = [("meta", FULL), ("meta", "meta/segment_meta.json")] if manifest else []
        assert kinds(shallow) == changed
        assert {one.segment_id for one in deep.findings if one.kind == "rows"} == {12, 13, 15, 22}


def test_full_meta_that_says_something_else_than_the_level_files_is_found_without_a_manifest() -> None:
    with serving(manifest=False) as (store, served):
        served.change(FULL, served.content(FULL).replace(b'"num_of_rows":3', b'"num_of_rows":9', 1))
        (finding,) = verified(store).findings
        assert (finding.kind, finding.segment_id) == ("meta", 12)


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"id":"an-id","name":"nightly","collection_backups":[{}]}'])
def test_a_meta_that_cannot_be_read_is_never_ok_and_nothing_is_said_to_be_whole(content: bytes, manifest: bool) -> None:
    with serving(manifest=manifest) as (store, served):
        served.change(FULL, content)
        found = verified(store, BINLOGS)
        assert kinds(verified(store)) == kinds(found)
        assert {key for _, key in kinds(found)} >= {FULL}
        assert found.intact == []
        with pytest.raises(BackupDamaged, match="No collection is whole"):
            found.check()
        assert stored(served)["ok"] is False


def test_a_commit_mark_that_cannot_be_read_is_damage_of_which_nothing_can_be_written_down() -> None:
    with serving() as (store, served):
        served.change(MARK, b"\xff")
        found = verified(store)
        assert ("meta", MARK) in kinds(found)
        assert VERIFIED not in served.keys


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is missing"), (b"", "not readable JSON"), (b"flip", "SHA-256"), (b"other", "is of another backup, 'another'")],
)
def test_a_manifest_that_is_lost_or_not_the_one_that_was_written_is_a_finding(content: bytes | None, said: str) -> None:
    with serving() as (store, served):
        whole = served.content(MANIFEST)
        if content is None:
            served.remove(MANIFEST)
        elif content == b"other":
            served.change(MANIFEST, manifests.to_json("another", {}, [], md5=True))
        else:
            served.change(MANIFEST, whole.replace(b"true", b"false") if content else content)
        found = verified(store)
        assert [(one.kind, one.key) for one in found.findings] == [("manifest", MANIFEST)]
        assert said in found.findings[0].detail
        assert (found.compared_with, found.intact) == ("meta", ["default.c10", "default.c20"])
        with pytest.raises(BackupDamaged, match=r"whole and can be restored: default\.c10, default\.c20"):
            found.check()


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), (b"{", "not readable JSON"), (b'{"backup_id":"an-id"}', "version")])
def test_schemas_that_are_lost_are_a_finding_that_leaves_collections_whole(content: bytes | None, said: str) -> None:
    with serving() as (store, served):
        if content is None:
            served.remove(SCHEMAS)
        else:
            served.change(SCHEMAS, content)
        (finding,) = verified(store).findings
        assert (finding.kind, finding.key, said in finding.detail) == ("schemas", SCHEMAS, True)
        assert verified(store).intact == ["default.c10", "default.c20"]


def test_schemas_of_an_attempt_that_was_not_finished_are_told_and_no_damage() -> None:
    with serving() as (store, served):
        log = Lines()
        served.change(SCHEMAS, raw_schema.to_file("another", {}))
        assert verified(store, log=log).ok
        assert any("schemas are of another attempt" in line for line in log.lines)


def test_what_the_reader_of_the_meta_could_not_recover_is_told() -> None:
    with serving(manifest=False) as (store, served):
        log = Lines()
        served.remove(FULL)
        verified(store, log=log)
        assert any("full_meta.json is missing: deletes kept in L0 segments may be lost" in line for line in log.lines)


def test_a_backup_from_before_there_were_manifests_is_not_blamed_for_having_none() -> None:
    with serving() as (store, served):
        served.remove(MANIFEST)
        served.change("provider/catalog.json", json.dumps({"version": 1, "backup_id": ID}).encode())
        assert verified(store).findings == []




# ---- objects that were written in parts -----------------------------------------------------------------------------------------------

PARTS = (KEY, "binlogs/insert_log/10/11/13/13/101/13101", "binlogs/insert_log/20/21/22/22/0/22000")


def in_parts(served: VerifiedStore, part: int, *, meaningful: bool = True) -> None:
    """Give objects the ETags of parts, by their content or by nothing; the manifest is written anew."""
    for key in PARTS:
        content, digest = served.content(key), PartsMd5(part)
        digest.update(content if meaningful else b"x" * len(content))
        served.change(key, content, etag=digest.value())
        served.parts[f"{BACKUPS}/{NAME}/{key}"] = part


@pytest.mark.parametrize("manifest", [True, False])
def test_rot_in_an_object_of_parts_is_found_by_the_etag_that_the_parts_give(manifest: bool) -> None:
    with serving(manifest=False) as (store, served):
        in_parts(served, 100)
        write(store, manifest=manifest, data=False)
        clean = verified(store, CHECKSUMS)
        assert (clean.findings, clean.unproven) == ([], 0)
        served.rot(KEY)
        assert kinds(verified(store, CHECKSUMS)) == [("content", KEY)]


def test_where_a_store_makes_no_etag_of_parts_from_their_content_it_proves_nothing_and_blames_nobody() -> None:
    with serving(manifest=False) as (store, served):
        in_parts(served, 100, meaningful=False)
        write(store, data=False)
        log = Lines()
        found = verified(store, BINLOGS, log)
        assert (found.findings, found.unproven, found.segments) == ([], len(PARTS), 5)
        assert any(f"of {len(PARTS)} objects nothing is known" in line for line in log.lines)


def test_a_store_that_does_not_tell_the_parts_leaves_them_unproven() -> None:
    with serving(manifest=False) as (store, served):
        in_parts(served, 100)
        served.parts.clear()
        write(store, data=False)
        assert (verified(store, CHECKSUMS).unproven, verified(store, CHECKSUMS).ok) == (len(PARTS), True)


def test_the_checksum_of_a_store_proves_what_its_etags_of_parts_do_not() -> None:
    with serving(manifest=False, checksums=True) as (store, served):
        in_parts(served, 100, meaningful=False)
        write(store, data=False)
        assert verified(store, CHECKSUMS).unproven == 0
        served.rot(KEY)
        (finding,) = verified(store, CHECKSUMS).findings
        assert (finding.kind, finding.key, "crc64nvme" in finding.detail) == ("content", KEY, True)


def test_a_verified_backup_is_read_as_before() -> None:
    with serving() as (store, _):
        verified(store, BINLOGS)
        assert [collection.collection_id for collection in read_backup(store, NAME).collections] == [10, 20]
