"""Whether a log is what Milvus writes: real files of 2.3.5, every form that other releases give them, and all kinds of damage."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.binlog_check import Checked, check_delta_log, check_insert_log
from airflow_provider_milvus_backup.core.errors import BackupDamaged
from tests.unit.binlog_files import DELETE, DELTA_KEY, INSERT_KEY, L0_KEY, STREAMED, Frame, Real, parquet, real
from tests.unit.test_fuzz_readers import FUZZ, documented

ROWS = {470756774119411202: 300, 470756774119411210: 100, 470756774119611911: 111}
DELETES = {470756774119411202: 30, 470756774119411210: 12}
#: Parts of a file that say nothing which could be compared with anything: times, and the type of the values.
TIMES = [range(4, 12), range(53, 73)]


def check(log: Real, content: bytes | None = None) -> Checked:
    """Check a real log, maybe with other content."""
    function = check_delta_log if log.field < 0 else check_insert_log
    return function(log.content if content is None else content, f"root/zoo/binlogs/{log.key}")


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- whole files -------------------------------------------------------------------------------------------------------------------


def test_real_logs_are_whole_and_hold_their_rows() -> None:
    rows: dict[tuple[int, int], int] = {}
    for log in real():
        found = check(log)
        assert (found.framed, found.foreign, str(found.log_id)) == (True, None, log.key.rpartition("/")[2])
        rows[log.segment, log.field] = rows.get((log.segment, log.field), 0) + (found.rows or 0)
    expected = {(segment, field): count for segment, count in ROWS.items() for field in (0, 1, 100, 101)}
    expected |= {(segment, 102): ROWS[segment] for segment in (470756774119411210, 470756774119611911)}
    expected[470756774119611911, 103] = 111
    assert rows == expected | {(segment, -1): count for segment, count in DELETES.items()}


WHOLE: dict[str, tuple[Frame, int | None]] = {
    "as 2.3 writes it": (Frame(), 3),
    "several data events": (Frame(payloads=(parquet(3), parquet(4))), 7),
    "a flush of 2.4 and 2.5, without the collection": (Frame(ids=(0, 2, 3, 101)), 3),
    "written in a stream": (Frame(next_off=STREAMED, times=(0, 0), extras={"original_size": "24", "nullable": True}), 3),
    "encrypted": (Frame(extras={"original_size": "24", "edek": "key", "encryption_zone": 7}, payloads=(), tail=b"\x93" * 90), None),
    "no rows": (Frame(payloads=(parquet(0),)), 0),
}


@pytest.mark.parametrize("form", WHOLE)
def test_every_form_of_an_insert_log_is_read(form: str) -> None:
    frame, rows = WHOLE[form]
    assert check_insert_log(frame.content(), INSERT_KEY) == Checked(INSERT_KEY, 9, rows, framed=True)


def test_delta_logs_of_all_releases_are_read() -> None:
    forms = {
        "2.3": Frame(DELETE, (1, 2, 3, -1)),
        "columns of keys and timestamps": Frame(DELETE, (1, 2, 3, 0), {"original_size": "24", "version": "MULTI_FIELD"}, next_off=STREAMED),
        "milvus-backup l0compact": Frame(DELETE, (0, 0, 0, 0), {}, (0, 0)),
    }
    for name, frame in forms.items():
        assert check_delta_log(frame.content(), DELTA_KEY) == Checked(DELTA_KEY, 9, 3, framed=True), name
    assert check_delta_log(Frame(DELETE, (1, -1, 3, -1)).content(), L0_KEY) == Checked(L0_KEY, 9, 3, framed=True)
    assert check_delta_log(parquet(5), DELTA_KEY) == Checked(DELTA_KEY, 9, 5, framed=False)


def test_column_groups_are_read() -> None:
    assert check_insert_log(parquet(5), INSERT_KEY) == Checked(INSERT_KEY, 9, 5, framed=False)
    assert check_insert_log(b"PARE" + b"x" * 40 + b"PARE", INSERT_KEY) == Checked(INSERT_KEY, 9, None, framed=False)


def test_keys_without_a_group_are_read_too() -> None:
    key = "binlogs/insert_log/1/2/3/101/9"
    assert check_insert_log(Frame().content(), key) == Checked(key, 9, 3, framed=True)
    key = "insert_log/7/8/9/binlogs/insert_log/1/2/3/3/101/9"  # a root path that looks like one
    assert check_insert_log(Frame().content(), key).rows == 3
    for function, key in ((check_insert_log, DELTA_KEY), (check_delta_log, INSERT_KEY), (check_insert_log, "insert_log/1/2/x/3/101/9")):
        with pytest.raises(BackupDamaged, match=r"' is not the key of a log"):
            function(Frame().content(), key)


# ---- damage ------------------------------------------------------------------------------------------------------------------------

DAMAGED: dict[str, tuple[Frame, str]] = {
    "of another field": (Frame(ids=(1, 2, 3, 102)), "at byte 45 it says that it is of field 102, its key that it is of field 101"),
    "of no field": (Frame(ids=(1, 2, 3, -1)), "of field -1"),
    "of another partition": (Frame(ids=(1, 5, 3, 101)), "at byte 29 it says that it is of partition 5, its key that it is of partition 2"),
    "of another collection": (Frame(ids=(5, 2, 3, 101)), "at byte 21 it says that it is of collection 5"),
    "a delta log in its place": (Frame(DELETE), r"the event at byte \d+ is of type 2, not 1"),
    "no descriptor": (Frame(descriptor_kind=1), "the event at byte 4 is not a descriptor"),
    "a descriptor that leads elsewhere": (Frame(descriptor_next_off=1), "the event at byte 4 is not a descriptor"),
    "an event that leads elsewhere": (Frame(next_off=-1), r"says that the next begins at byte"),
    "other lengths of events": (Frame(event_lengths=bytes(8)), "at byte 73 does not have the lengths of the events"),
    "no lengths of events": (Frame(event_lengths=b"", extras=b""), "does not have the lengths of the events"),
    "extras that are not JSON": (Frame(extras=b"{"), "the descriptor's extras at byte 85 is not readable JSON"),
    "extras that are a list": (Frame(extras=[]), r"the descriptor's extras at byte 85 is \[\], not an object"),
    "a size that is no number": (Frame(extras={"original_size": "ten"}), "original_size is 'ten', not a number of bytes"),
    "no size": (Frame(extras={"nullable": True}), "original_size is None, not a number of bytes"),
    "a flag that is none": (Frame(extras={"original_size": "24", "nullable": 1}), "nullable is 1, not true or false"),
    "no data": (Frame(payloads=()), r"it ends at byte \d+, after its descriptor"),
    "no encrypted data": (Frame(extras={"original_size": "24", "edek": "key"}, payloads=()), r"it ends at byte \d+, after its descriptor"),
    "encrypted data that is not said to be": (Frame(payloads=(b"PARE" + bytes(40) + b"PARE",)), "is encrypted, and the descriptor does"),
    "no Parquet": (Frame(payloads=(b"x" * 40,)), "does not begin with PAR1"),
    "something behind it": (Frame(tail=b"\0" * 17), r"the event at byte \d+ goes beyond the end: 0 bytes"),
    "a byte behind it": (Frame(tail=b"\0"), r"the event at byte \d+ goes beyond the end"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_with_its_key_and_place(case: str) -> None:
    frame, sentence = DAMAGED[case]
    with pytest.raises(BackupDamaged, match=rf"^insert log '{INSERT_KEY}' \([0-9,]+ bytes\) is damaged: .*{sentence}"):
        check_insert_log(frame.content(), INSERT_KEY)


@pytest.mark.parametrize(("content", "begins"), [(b"", "nothing"), (b"102 ...", "31303220"), (b"PAR", "504152")])
def test_another_file_is_named(content: bytes, begins: str) -> None:
    with pytest.raises(BackupDamaged, match=f"it begins with {begins}, neither a binlog nor a Parquet file"):
        check_insert_log(content, INSERT_KEY)


def test_extras_longer_than_the_descriptor_are_refused() -> None:
    content = bytearray(Frame().content())
    struct.pack_into("<i", content, 81, -1)
    with pytest.raises(BackupDamaged, match="extras at byte 85 have -1 bytes, and it ends at byte"):
        check_insert_log(bytes(content), INSERT_KEY)


def test_a_log_of_another_segment_says_so() -> None:
    assert check_insert_log(Frame(ids=(7, 8, 9, 101)).content(), INSERT_KEY).foreign == 9
    assert check_delta_log(Frame(DELETE, (7, 8, 9, -1)).content(), DELTA_KEY).foreign == 9


def test_a_log_in_the_place_of_any_other_of_its_collection_is_found() -> None:
    found = 0
    for one in real():
        for other in real():
            if one is not other and (one.segment, one.field) != (other.segment, other.field):
                try:
                    assert check(one, other.content).foreign == other.segment
                except BackupDamaged:
                    assert one.field != other.field
                found += 1
    assert found > 500


def test_a_log_that_is_cut_anywhere_is_found() -> None:
    for log in real():
        for end in range(len(log.content)):
            with pytest.raises(BackupDamaged):
                check(log, log.content[:end])


def test_a_bit_that_flips_in_the_frame_is_found() -> None:
    """All of the frame but for times; inside compressed pages nothing shows without what they were compressed from."""
    for log in [next(log for log in real() if log.field == field) for field in (-1, 102)]:
        size = log.content.index(b"PAR1")
        extras = range(85 + len('{"original_size":"'), size - 33)
        event = size - 33
        blind = {at for part in (*TIMES, extras, range(event, event + 8), range(event + 17, size)) for at in part}
        end = len(log.content)
        for at in [*range(size + 4), *range(end - 8, end)]:
            for bit in range(8):
                try:
                    found = check(log, flipped(log.content, 8 * at + bit))
                except BackupDamaged:
                    continue
                assert at in blind or found.foreign, f"bit {bit} of byte {at}"


def test_a_flipped_bit_anywhere_gives_a_sentence_or_the_rows_that_are_there() -> None:
    for log in [next(log for log in real() if log.field == field) for field in (-1, 1)]:
        for bit in range(8 * len(log.content)):
            with contextlib.suppress(BackupDamaged):
                found = check(log, flipped(log.content, bit))
                assert found.rows is None or found.rows >= 0


# ---- hostile files -----------------------------------------------------------------------------------------------------------------

MUTATED = settings(FUZZ, max_examples=300)


@MUTATED
@given(st.data())
def test_mutated_logs_are_read_or_refused(data: st.DataObject) -> None:
    log = data.draw(st.sampled_from(real()))
    content = bytearray(log.content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    with documented(BackupDamaged):
        found = check(log, bytes(content))
        assert found.rows is None or found.rows >= 0


@MUTATED
@given(st.binary(max_size=300), st.sampled_from([b"", b"PAR1", b"PARE", (0xFFFABC).to_bytes(4, "little")]), st.booleans())
def test_any_bytes_are_read_or_refused(content: bytes, begin: bytes, closed: bool) -> None:
    whole = begin + content + (begin if closed else b"")
    for function, key in ((check_insert_log, INSERT_KEY), (check_delta_log, DELTA_KEY)):
        with documented(BackupDamaged):
            function(whole, key)


@MUTATED
@given(st.text(max_size=60) | st.from_regex(r"insert_log(/-?[0-9]{1,30}){3,7}\n?", fullmatch=True))
def test_any_key_is_read_or_refused(key: str) -> None:
    frame: Any = Frame().content()
    for function in (check_insert_log, check_delta_log):
        with documented(BackupDamaged):
            function(frame, key)
