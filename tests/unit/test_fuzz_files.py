"""Hostile delta logs, configurations, keys and names: read or refused with the documented error, in little time."""

from __future__ import annotations

import struct
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, read
from airflow_provider_milvus_backup.core.binlog import count_rows
from airflow_provider_milvus_backup.core.errors import BackupDamaged, ConfigError
from airflow_provider_milvus_backup.core.jsonreader import MAX_INT64
from airflow_provider_milvus_backup.core.names import CollectionName, check_backup_name, parse_selection, select, targets
from tests.unit.backup_yamls import V1, V2
from tests.unit.test_fuzz_readers import FUZZ, documented, hostile, mutate, nested

# ---- delta logs ------------------------------------------------------------------------------------------------------------------

HEADER = struct.Struct("<QbiI")


def event(payload: bytes) -> bytes:
    return HEADER.pack(1, 4, HEADER.size + len(payload), 0) + payload


def delta_log(*footers: bytes) -> bytes:
    """Return a delta log whose data events end in these Parquet footers."""
    ends = (event(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1") for footer in footers)
    return struct.pack("<I", 0xFFFABC) + event(b"descriptor") + b"".join(ends)


def varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


SCHEMA = b"\x19\x2c\x48\x06schema\x15\x02\x00\x15\x0c\x25\x02\x18\x02pk\x25\x00\x00"
FOOTER = b"\x15\x04" + SCHEMA + b"\x16" + varint(2 * 7) + b"\x19\x0c\x28\x04test\x00"


def test_a_made_up_delta_log_is_counted() -> None:
    assert count_rows(delta_log(FOOTER, FOOTER), "key") == 14
    assert count_rows(b"PAR1" + FOOTER + struct.pack("<I", len(FOOTER)) + b"PAR1", "key") == 7


def test_a_file_that_is_no_delta_log_is_refused() -> None:
    for content in (b"", b"102 ...", b"\0" + delta_log(FOOTER)):
        with pytest.raises(BackupDamaged, match="the magic number is missing"):
            count_rows(content, "key")


MANY = varint(2**60)
HOSTILE_FOOTERS = {
    "lists in lists": b"\x19" * 5000,
    "structures in structures": b"\x1c" * 5000,
    "countless true": b"\x19\xf1" + MANY,
    "countless bytes": b"\x19\xf3" + MANY,
    "countless doubles": b"\x19\xf7" + MANY,
    "countless structures": b"\x19\xfc" + MANY,
    "a string beyond the end": b"\x18" + MANY,
    "a number without end": b"\x16" + b"\xff" * 500_000,
    "more rows than there can be": b"\x36" + varint(2**65),
    "fewer rows than none": b"\x36\x01",
    "a map": b"\x1b\x00",
    "a double beyond the end": b"\x17\x00",
    "no row count": b"\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE_FOOTERS)
def test_a_hostile_footer_is_refused_in_little_time(case: str) -> None:
    with documented(), pytest.raises(BackupDamaged, match="delta log 'key'"):
        count_rows(delta_log(FOOTER, HOSTILE_FOOTERS[case]), "key")


def test_a_footer_longer_than_its_event_is_refused() -> None:
    content = delta_log(FOOTER)[:-8] + struct.pack("<I", 2 * len(FOOTER)) + b"PAR1"
    with pytest.raises(BackupDamaged, match="longer than its event"):
        count_rows(content, "key")


@settings(FUZZ, max_examples=200)
@given(st.data())
def test_damaged_delta_logs_are_counted_or_refused(data: st.DataObject) -> None:
    content = bytearray(delta_log(*([FOOTER] * data.draw(st.integers(0, 3)))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9) | st.just(MANY))
    with documented(BackupDamaged):
        assert 0 <= count_rows(bytes(content), "key") <= 4 * MAX_INT64


@settings(FUZZ, max_examples=150)
@given(st.binary(max_size=60))
def test_any_footer_is_counted_or_refused(footer: bytes) -> None:
    with documented(BackupDamaged):
        assert 0 <= count_rows(delta_log(footer), "key") <= MAX_INT64
    with documented(BackupDamaged):
        count_rows(footer, "key")


# ---- backup.yaml -----------------------------------------------------------------------------------------------------------------


def read_text(content: bytes | str) -> BackupYaml:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        file.flush()
        return read(file.name)


def bomb(template: str) -> str:
    """Return twelve levels, each of which names the one before nine times."""
    levels = (
        f"a{n}: &a{n} " + template.format(", ".join(f"k{i}: *a{n - 1}" for i in range(9)), ", ".join([f"*a{n - 1}"] * 9))
        for n in range(1, 13)
    )
    return "\n".join(["a0: &a0 {x: {}, y: {}}", *levels])


SCALARS = [
    '!!int ""',
    '!!float ""',
    "!!bool maybe",
    "!!timestamp soon",
    '"\\UFFFFFFFF"',
    '"\\U00110000"',
    '"\\uD800"',
    "!!binary ä",
    "!!set {a}",
]
SCALARS += [
    f"!!int {'9' * 5000}",
    f"!!int 0x{'f' * 5000}",
    f"!!float {'1:' * 5000}1",
    '!!timestamp "0001-01-01 00:00:00 +23:59"',
    "2001-99-99",
]
SCALARS += [
    "!!python/object:os.system x",
    "!!omap [a]",
    "!!pairs [[a]]",
    "!!null x",
    "!!map x",
    "=",
    "<<",
    "*a",
    "? a",
    "- a",
    "|",
    "%",
    "\t",
    "\ufeff",
]


@pytest.mark.parametrize("scalar", range(len(SCALARS)))
def test_a_scalar_of_another_kind_is_text_or_refused(scalar: int) -> None:
    for line in ("milvus:\n  user: {}\n", "milvus:\n  ? {}\n  : x\n", "{}: x", "{}\n", "milvus: {{port: {}}}\n", "<<: {}\n"):
        with documented(ConfigError):
            read_text(line.format(SCALARS[scalar]))


@pytest.mark.parametrize("template", ["{{{0}}}", "{{<<: [{1}], x: 1}}"])
def test_aliases_that_multiply_are_refused_in_little_time(template: str) -> None:
    with documented(), pytest.raises(ConfigError):
        read_text(bomb(template))


def test_lists_of_aliases_are_not_unfolded() -> None:
    with documented():
        assert len(read_text(bomb("[{1}]")).ignored) == 12


@pytest.mark.parametrize("value", [10**5000, "\ud800", float("nan"), nested(100), (1,), b"x", object()], ids=range(7))
def test_content_that_is_no_text_is_refused_or_read(value: Any) -> None:
    for config in ({"milvus": {"port": value}}, {"minio": {"rootPath": value}}, {"milvus": value}, {"x": {"y": value}}):
        with documented(ConfigError):
            read(config)
    if not isinstance(value, (dict, list)):
        with documented(ConfigError):
            read({value: {value: 1}})


@settings(FUZZ, max_examples=100)
@given(st.data())
def test_changed_content_is_read_or_refused(data: st.DataObject) -> None:
    import yaml

    with documented(ConfigError):
        found = read(mutate(yaml.safe_load(data.draw(st.sampled_from([V1, V2]))), data))
        assert all("\ud800" not in str(value) for value in (found, found.storage, found.ignored))


@settings(FUZZ, max_examples=60)
@given(st.data())
def test_a_changed_file_is_read_or_refused(data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from([V1, V2])).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        before, colon, _ = lines[at].partition(":")
        junk = st.text("{}[]&*!|>%@`\"'#:-?, \t\\x0a1~=<\ud800\0", max_size=8)
        lines[at] = f"{before}{colon} {data.draw(junk | st.sampled_from(SCALARS))}"
    with documented(ConfigError):
        read_text("\n".join(lines))


@settings(FUZZ, max_examples=80)
@given(st.binary(max_size=60) | st.text("ab:-?&*!<>|[]{}#%'\" \n\t\\x0U~=.1", max_size=40).map(str.encode))
def test_any_bytes_are_a_configuration_or_refused(content: bytes) -> None:
    with documented(ConfigError):
        read_text(content)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000, "", "/dev/null"])
def test_a_path_that_cannot_be_opened_is_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        read(path)


# ---- keys ------------------------------------------------------------------------------------------------------------------------

digits = st.sampled_from(
    ["0", "1", "-1", "007", "00", "+1", "1_0", " 1", "\u0661", str(2**63 - 1), str(2**63), "9" * 19, "9" * 20, "..", "", "a"]
)


@settings(FUZZ, max_examples=200)
@given(st.sampled_from(["", "files", "a/b"]), st.sampled_from([layout.INSERT, layout.DELTA]), st.lists(digits, min_size=3, max_size=6))
def test_a_key_is_understood_only_if_its_ids_lead_back_to_it(root: str, kind: str, parts: list[str]) -> None:
    key = "/".join([*filter(None, [root, kind]), *parts])
    if insert := layout.parse_insert(root, key):
        assert layout.source_insert(root, *insert) == key
    if delta := layout.parse_delta(root, key):
        assert layout.source_delta(root, *delta) == key
    assert all(-1 <= part <= MAX_INT64 for part in (*(insert or ()), *(delta or ())))


@settings(FUZZ, max_examples=200)
@given(
    st.lists(st.sampled_from(["", ".", "..", "...", "a", " ", "\0", "\ud800", "~", "a\0b"]), max_size=6).map("/".join)
    | st.text(max_size=20)
)
def test_a_root_path_is_refused_or_leaves_no_way_out(root: str) -> None:
    with documented(ConfigError):
        key = layout.meta_key(layout.clean_root(root), "nightly", layout.COMMIT_MARK)
        assert key.endswith("nightly/meta/backup_meta.json")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert [part for part in root.split("/") if part not in ("", ".")] == key.split("/")[:-3]


# ---- names -----------------------------------------------------------------------------------------------------------------------

anything = st.text(max_size=20) | st.text("ab.*_$/\\\0 ,-1\ud800\n", max_size=12) | hostile
HERE = [CollectionName("default", "a"), CollectionName("default", "b"), CollectionName("b", "a"), CollectionName("x/..", "..")]


@settings(FUZZ, max_examples=200)
@given(anything)
def test_a_valid_backup_name_has_no_separator(name: Any) -> None:
    with documented(ConfigError):
        assert check_backup_name(name) == name
        assert name.isascii()
        assert name.isidentifier()
        assert layout.join("root", name) == f"root/{name}"


@settings(FUZZ, max_examples=200)
@given(anything | st.lists(anything, max_size=3), anything)
def test_any_selection_picks_from_what_is_there_or_is_refused(selection: Any, database: Any) -> None:
    with documented(ConfigError):
        patterns = parse_selection(selection)
        assert all(pattern.strip() == pattern and "/" not in pattern for pattern in patterns)
        assert set(select(HERE, patterns, database)) <= set(HERE)


pieces = st.sampled_from(["a", "b", "default.a", "b.a", "default.*", "b.*", "c.*", "_a", "c", "", "*", "a.b.c"])
odd = st.sampled_from(["a", "b", "a_a", "default", "a" * 255, "", "..", "a/b", "a.b", "\ud800"])


@settings(FUZZ, max_examples=300)
@given(
    st.lists(st.builds(CollectionName, odd, odd), max_size=5),
    pieces | anything,
    st.dictionaries(pieces, pieces | anything, max_size=3) | anything,
)
def test_no_two_sources_get_one_target(sources: list[CollectionName], suffix: Any, rename: Any) -> None:
    for found, rules in ((suffix, None), (None, rename), (suffix, rename)):
        with documented(ConfigError):
            result = targets(sources, found, rules)
            assert list(result) == sources
            assert len(set(result.values())) == len(sources)
            assert all(part.isascii() and not set("/.\\") & set(part) for name in result.values() for part in name)


def test_a_hundred_thousand_collections_are_renamed_in_little_time() -> None:
    with documented():
        assert len(targets([CollectionName("default", f"c{number}") for number in range(100_000)], "_old")) == 100_000
