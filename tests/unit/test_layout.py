"""Keys are built as Milvus and milvus-backup build them, and only such keys are understood."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import ConfigError

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ids = st.integers(1, 2**63 - 1)
fields = st.integers(0, 2**31)
roots = st.sampled_from(["", "files", "a/b/c", "root-1", "insert_log", "insert_log/1", "delta_log"])


@settings(BUSY, max_examples=40)
@given(roots, ids, ids, ids, fields, ids)
def test_an_insert_key_is_read_as_it_was_built(root: str, collection: int, partition: int, segment: int, field: int, log: int) -> None:
    key = layout.source_insert(root, collection, partition, segment, field, log)
    assert layout.parse_insert(root, key) == (collection, partition, segment, field, log)
    assert layout.parse_delta(root, key) is None
    assert key.startswith(layout.source_dir(root, layout.INSERT, collection))


@settings(BUSY, max_examples=40)
@given(roots, ids, ids | st.just(layout.ALL_PARTITIONS), ids, ids)
def test_a_delta_key_is_read_as_it_was_built(root: str, collection: int, partition: int, segment: int, log: int) -> None:
    key = layout.source_delta(root, collection, partition, segment, log)
    assert layout.parse_delta(root, key) == (collection, partition, segment, log)
    assert layout.parse_insert(root, key) is None
    assert key.startswith(layout.source_dir(root, layout.DELTA, collection))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "files",
        "files/",
        "files/insert_log/1/2/3/4",
        "files/insert_log/1/2/3/4/5/",
        "files/insert_log/1/2/3/4/5/6",
        "files/insert_log/-1/2/3/4/5",
        "files/insert_log/1/-1/3/4/5",
        "files/insert_log/1/2/3/4/x",
        "files/insert_log//2/3/4/5",
        "files/insert_log/1/2/3/4/5\n",
        "files/insert_log/1/2/3/4/" + "9" * 20,
        "files/stats_log/1/2/3/4/5",
        "files/index_files/1/2/3/4/5",
        "files/delta_log/1/2/3",
        "files/delta_log/1/-2/3/4",
        "files/delta_log/1/+2/3/4",
        "insert_log/1/2/3/4/5",
        "files2/insert_log/1/2/3/4/5",
        "files//insert_log/1/2/3/4/5",
    ],
)
def test_any_other_key_is_not_a_log(key: str) -> None:
    assert layout.parse_insert("files", key) is None
    assert layout.parse_delta("files", key) is None


@pytest.mark.parametrize("key", ["other/insert_log/1/2/3/4/5", "filesXinsert_log/1/2/3/4/5"])
def test_a_key_below_another_root_is_not_a_log(key: str) -> None:
    assert layout.parse_insert("files", key) is None


@pytest.mark.parametrize("digit", ["\u0661", "\uff11"])
def test_digits_of_other_scripts_are_not_ids(digit: str) -> None:
    assert layout.parse_insert("files", f"files/insert_log/{digit}/2/3/4/5") is None
    assert layout.parse_delta("files", f"files/delta_log/{digit}/2/3/4") is None


@settings(BUSY, max_examples=40)
@given(st.text(st.sampled_from("0123456789-/_iln\u0661abdegorst"), max_size=40))
def test_any_text_is_a_log_or_not_but_never_an_error(key: str) -> None:
    for parse in (layout.parse_insert, layout.parse_delta):
        found: Any = parse("", key)
        assert found is None or all(isinstance(part, int) for part in found)


@pytest.mark.parametrize(
    ("root", "clean"),
    [("", ""), ("/", ""), (".", ""), ("files", "files"), ("/files/", "files"), ("a//b/./c", "a/b/c"), ("./a", "a"), ("a b", "a b")],
)
def test_a_root_path_loses_what_does_not_matter(root: str, clean: str) -> None:
    assert layout.clean_root(root) == clean


@settings(BUSY, max_examples=40)
@given(st.text(st.sampled_from("a./"), max_size=10))
def test_cleaning_a_root_path_again_changes_nothing_and_never_leaves_dots(root: str) -> None:
    try:
        clean = layout.clean_root(root)
    except ConfigError:
        assert ".." in root.split("/")
        return
    assert layout.clean_root(clean) == clean
    assert not {".", "..", ""} & set(clean.split("/")) or clean == ""


@pytest.mark.parametrize("root", ["..", "../a", "a/..", "a/../b", "/.."])
def test_a_root_path_that_climbs_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match="name the path itself"):
        layout.clean_root(root)


def test_a_backup_lies_where_the_official_tool_looks_for_it() -> None:
    assert layout.backup_dir("backup", "n") == "backup/n/"
    assert layout.backup_dir("", "n") == "n/"
    assert layout.meta_key("backup", "n", layout.COMMIT_MARK) == "backup/n/meta/backup_meta.json"
    assert layout.meta_key("", "n", "full_meta.json") == "n/meta/full_meta.json"
    assert layout.binlogs_dir("backup", "n") == "backup/n/binlogs/"
    binlogs = layout.binlogs_dir("backup", "n")
    assert layout.partition_dir(binlogs, layout.INSERT, 1, 2) == "backup/n/binlogs/insert_log/1/2/"
    assert layout.segment_dir(binlogs, layout.INSERT, 1, 2, 3, 3) == "backup/n/binlogs/insert_log/1/2/3/3/"
    assert layout.segment_dir(binlogs, layout.DELTA, 1, -1, None, 3) == "backup/n/binlogs/delta_log/1/-1/3/"


def test_files_of_our_own_lie_inside_the_backup() -> None:
    assert layout.provider_key("backup", "n", "report.json") == "backup/n/provider/report.json"


def test_the_commit_mark_is_the_last_of_the_meta_files_and_the_full_meta_the_first() -> None:
    assert layout.META_FILES[0] == "full_meta.json"
    assert layout.META_FILES[-1] == layout.COMMIT_MARK == "backup_meta.json"


@settings(BUSY, max_examples=40)
@given(roots, st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), ids, ids, ids)
def test_every_key_of_a_backup_lies_inside_its_directory(root: str, name: str, collection: int, partition: int, segment: int) -> None:
    inside = layout.backup_dir(root, name)
    binlogs = layout.binlogs_dir(root, name)
    for key in (
        *(layout.meta_key(root, name, file) for file in layout.META_FILES),
        layout.provider_key(root, name, "x"),
        binlogs,
        layout.partition_dir(binlogs, layout.DELTA, collection, partition),
        layout.segment_dir(binlogs, layout.INSERT, collection, partition, segment, segment),
    ):
        assert key.startswith(inside)
        assert "//" not in key


def test_staging_lies_outside_the_root_path_of_milvus() -> None:
    assert layout.staging_dir("abc") == "restore-temp-ba7816bf8f01cfea/"
