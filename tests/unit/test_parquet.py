"""Whether a Parquet file is whole: every page is where the footer says, and hostile footers end in a sentence, in little time."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import parquet
from tests.unit.test_fuzz_readers import FUZZ, documented

INTEGER, BINARY, LIST, STRUCT = 6, 8, 9, 12
Value = tuple[int, bytes]
Fields = dict[int, Value]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(value: int) -> Value:
    return INTEGER, varint(value << 1 if value >= 0 else (-value << 1) - 1)


def struct_of(fields: Fields) -> Value:
    """Return a structure; every field's header names its id in full."""
    return STRUCT, b"".join(bytes([kind]) + number(field)[1] + value for field, (kind, value) in fields.items()) + b"\0"


def list_of(items: list[Value], kind: int = STRUCT, count: int | None = None) -> Value:
    return LIST, bytes([0xF0 | kind]) + varint(len(items) if count is None else count) + b"".join(value for _, value in items)


def page(body: bytes, values: int, *, kind: int = 0, size: int | None = None, crc: int | None = None) -> bytes:
    """Return a page: 0 data, 2 a dictionary, 3 data of the second version."""
    fields = {1: number(kind), 2: number(999), 3: number(len(body) if size is None else size)}
    if crc is not None:
        fields[4] = number(crc)
    return struct_of({**fields, {0: 5, 2: 7, 3: 8}[kind]: struct_of({1: number(values)})})[1] + body


def column(values: int, size: int, data: int, dictionary: int | None = None, more: Fields | None = None) -> Value:
    about = {1: number(6), 5: number(values), 7: number(size), 9: number(data)}
    return struct_of({2: number(0), 3: struct_of(about if dictionary is None else {**about, 11: number(dictionary)}), **(more or {})})


def group(columns: list[Value], rows: int) -> Value:
    return struct_of({1: list_of(columns), 2: number(0), 3: number(rows)})


def file(pages: bytes, footer: Fields, behind: bytes = b"") -> bytes:
    written = struct_of({1: number(2), **footer})[1] + behind
    return b"PAR1" + pages + written + struct.pack("<I", len(written)) + b"PAR1"


def one_group(pages: bytes, columns: list[Value], rows: int) -> bytes:
    return file(pages, {3: number(rows), 4: list_of([group(columns, rows)])})


def check(content: bytes) -> int | None:
    """Check a file that lies somewhere in other bytes."""
    before, after = b"PAR1 before", b"PAR1"
    return parquet.check(before + content + after, len(before), len(before) + len(content))


DATA, MORE, DICTIONARY = page(b"a" * 50, 3), page(b"b" * 20, 4), page(b"words", 2, kind=2)


# ---- whole files -------------------------------------------------------------------------------------------------------------------


def test_pages_of_a_column_one_after_another() -> None:
    assert check(one_group(DATA + MORE, [column(7, len(DATA + MORE), 4)], 7)) == 7


def test_a_dictionary_before_the_pages() -> None:
    whole = DICTIONARY + DATA + MORE
    assert check(one_group(whole, [column(7, len(whole), 4 + len(DICTIONARY), 4)], 7)) == 7
    # Some writers leave the place of a dictionary that is not there at 0.
    assert check(one_group(DATA, [column(3, len(DATA), 4, 0)], 3)) == 3


def test_columns_and_row_groups() -> None:
    a, b = column(3, len(DATA), 4), column(4, len(MORE), 4 + len(DATA))
    lists = page(b"c", 9, kind=3)  # a column of lists has more values than rows
    c = column(9, len(lists), 4 + len(DATA + MORE))
    footer = {3: number(7), 4: list_of([group([a], 3), group([b, c], 4)]), 6: (BINARY, b"\4test")}
    assert check(file(DATA + MORE + lists, footer)) == 7


def test_no_rows() -> None:
    assert check(file(b"", {3: number(0), 4: list_of([])})) == 0
    assert check(one_group(b"", [column(0, 0, 0)], 0)) == 0
    empty = page(b"", 0)
    assert check(one_group(empty, [column(0, len(empty), 4)], 0)) == 0


@pytest.mark.parametrize("crc", [zlib.crc32(b"x" * 50), zlib.crc32(b"x" * 50) - 2**32])
def test_a_crc_is_compared(crc: int) -> None:
    good = page(b"x" * 50, 3, crc=crc)
    assert check(one_group(good, [column(3, len(good), 4)], 3)) == 3
    bad = good[:-1] + b"y"
    with pytest.raises(ValueError, match="the Parquet page at byte 15 does not have the CRC that its header tells"):
        check(one_group(bad, [column(3, len(bad), 4)], 3))


def test_encrypted_files_are_read_as_far_as_they_can_be() -> None:
    assert check(b"PARE" + b"\x93" * 50 + b"PARE") is None
    pages = b"\x93" * 60
    unread = {3: number(5), 4: list_of([group([column(5, 60, 4)], 5)]), 8: struct_of({})}
    assert check(file(pages, unread, behind=b"a signature")) == 5
    one = struct_of({2: number(4), 8: struct_of({}), 9: (BINARY, b"\x03xyz")})
    assert check(file(pages, {3: number(5), 4: list_of([group([one], 5)])})) == 5


# ---- damaged files -----------------------------------------------------------------------------------------------------------------

GOOD = column(3, len(DATA), 4)
UNCOUNTED = struct_of({1: number(0), 3: number(4)})[1] + b"body"
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "at byte 11 does not end in PAR1 at byte 11"),
    "no end": (one_group(DATA, [GOOD], 3)[:-1], "does not end in PAR1 at byte"),
    "an end alone": (b"PAR1PAR1", "does not end in PAR1"),
    "a footer that is too long": (b"PAR1" + struct.pack("<I", 1) + b"PAR1", "is longer than its event: 1 bytes"),
    "an empty footer": (b"PAR1" + struct.pack("<I", 0) + b"PAR1", "a Thrift structure goes beyond its end"),
    "no row count": (file(DATA, {4: list_of([group([GOOD], 3)])}), "has no row count"),
    "no row groups": (file(DATA, {3: number(3)}), "counts 3 rows, its row groups 0"),
    "other row groups": (file(DATA, {3: number(4), 4: list_of([group([GOOD], 3)])}), "counts 4 rows, its row groups 3"),
    "fewer rows than none": (file(DATA, {3: number(-1)}), "-1 is no row count"),
    "more rows than there can be": (file(DATA, {3: number(2**63)}), f"{2**63} is no row count"),
    "rows that are text": (file(DATA, {3: (BINARY, b"\1x")}), "the row count is of Thrift type 8, not an integer"),
    "row groups that are numbers": (file(DATA, {4: list_of([number(1)], INTEGER)}), "the row groups are of Thrift type 6, not structures"),
    "row groups that are none": (file(DATA, {4: number(1)}), "the row groups are of Thrift type 6, not a list"),
    "something behind the footer": (file(DATA, {3: number(3), 4: list_of([group([GOOD], 3)])}, b"x"), "the Parquet footer ends at byte"),
    "a column that is nowhere": (one_group(DATA, [struct_of({2: number(0)})], 3), "does not say where its pages are"),
    "pages in the magic number": (one_group(DATA, [column(3, len(DATA), 3)], 3), "are not between the magic number and the footer"),
    "pages in the footer": (one_group(DATA, [column(3, len(DATA), 5)], 3), "are not between the magic number and the footer"),
    "values without pages": (one_group(b"", [column(3, 0, 4)], 3), "from byte 15 on hold 0 values, not 3"),
    "more pages than bytes": (one_group(DATA, [GOOD, GOOD], 3), "tells of more bytes than come before it"),
    "fewer pages": (one_group(DATA + MORE, [column(7, len(DATA), 4)], 7), "from byte 15 on hold 3 values, not 7"),
    "a page that ends elsewhere": (one_group(DATA + MORE, [column(7, len(DATA + MORE) - 1, 4)], 7), "goes beyond its column"),
    "a page of another size": (one_group(page(b"a" * 50, 3, size=51), [GOOD], 3), "the Parquet page at byte 15 goes beyond its column"),
    "a page without a header": (one_group(b"\0" * len(DATA), [GOOD], 3), "the header of the Parquet page at byte 15 is not complete"),
    "a page without values": (one_group(UNCOUNTED, [column(3, len(UNCOUNTED), 4)], 3), "page at byte 15 is not complete"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_said_with_its_place(case: str) -> None:
    content, sentence = DAMAGED[case]
    with pytest.raises(ValueError, match=sentence):
        check(content)


def test_the_footer_alone_is_read_for_the_rows() -> None:
    content = b"event" + one_group(b"\0" * len(DATA), [GOOD], 3)
    assert parquet.footer_rows(content, 5, len(content)) == 3


def test_a_file_that_is_cut_or_shortened_anywhere_is_found() -> None:
    content = one_group(DICTIONARY + DATA, [column(3, len(DICTIONARY + DATA), 4 + len(DICTIONARY), 4)], 3)
    assert parquet.check(content, 0, len(content)) == 3
    for at in range(len(content)):
        for damaged in (content[:at], content[at + 1 :]):
            with pytest.raises(ValueError, match=r"Parquet|Thrift"):
                parquet.check(damaged, 0, len(damaged))


# ---- hostile files -----------------------------------------------------------------------------------------------------------------

MANY = varint(2**60)
HOSTILE: dict[str, bytes] = {
    "countless row groups": file(b"", {3: number(0), 4: list_of([], count=2**60)}),
    "countless columns": file(b"", {3: number(0), 4: list_of([struct_of({1: list_of([], count=2**60)})])}),
    "countless true": file(b"", {9: (LIST, b"\xf1" + MANY)}),
    "structures in structures": file(b"", {9: (STRUCT, b"\x1c" * 5000)}),
    "columns that are all the same pages": one_group(page(b"", 0) * 5000, [column(0, 5000 * len(page(b"", 0)), 4)] * 5000, 0),
    "pages without end": one_group(b"", [column(0, 2**62, 4)], 0),
    "a page of all bytes there are": one_group(page(b"", 0, size=2**62), [column(0, 40, 4)], 0),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_little_time(case: str) -> None:
    with documented(), pytest.raises(ValueError, match=r"Parquet|Thrift"):
        check(HOSTILE[case])


def test_columns_without_bytes_cost_nothing() -> None:
    with documented():
        assert check(one_group(b"", [column(0, 0, 4)] * 5000, 0)) == 0


@settings(FUZZ, max_examples=400)
@given(st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(one_group(DICTIONARY + DATA + MORE, [column(7, len(DICTIONARY + DATA + MORE), 4 + len(DICTIONARY), 4)], 7))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9) | st.just(MANY))
    with documented(ValueError):
        rows = check(bytes(content))
        assert rows is None or 0 <= rows < 2**63
