"""What the door makes of a request, without any server: the imports that stand for a job, Go's way to read a body, and one port for two."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.door.mux import Mux
from tests.door.refused import Refused
from tests.door.rest_side import CREATE, JOB, SEGMENTS, bind
from tests.door.translation import Keys, imports_of, parents, segments_of, written

INSERT, DELTA = "b/insert_log/1/2/", "b/delta_log/1/2/"


def bucket(inserts: Sequence[str], deltas: Sequence[str] = ()) -> dict[str, int]:
    """Return the objects of segments in groups of their own name."""
    return {f"{INSERT}{s}/{s}/{f}/9": 10 for s in inserts for f in (0, 1, 100)} | {f"{DELTA}{s}/{s}/9": 1 for s in deltas}


def pair(segment: str, deletes: bool = False) -> list[str]:
    return [f"{INSERT}{segment}/", *([f"{DELTA}{segment}/"] if deletes else [])]


def read(files: Sequence[Sequence[str]], objects: dict[str, int]) -> list[tuple[str, str]]:
    return sorted((one.insert, one.delta) for one in imports_of(files, Keys(objects)))


# ---- imports ---------------------------------------------------------------------------------------------------------------------


def test_a_whole_partition_is_one_import() -> None:
    objects = bucket(["10", "11", "2"], ["11"])
    files = [pair("10"), pair("11", deletes=True), pair("2")]
    (one,) = imports_of(files, Keys(objects))
    assert (one.insert, one.delta) == (INSERT, DELTA)
    assert {(s.insert, s.delta, s.size) for s in one.segments} == {
        (f"{INSERT}10/10/", "", 30),
        (f"{INSERT}11/11/", f"{DELTA}11/11/", 30),
        (f"{INSERT}2/2/", "", 30),
    }
    assert parents(files) == {INSERT, DELTA}


def test_neighbours_that_were_not_asked_for_are_avoided() -> None:
    objects = bucket(["10", "11", "12", "2"])
    assert read([pair("10"), pair("11"), pair("2")], objects) == [(f"{INSERT}10/", ""), (f"{INSERT}11/", ""), (f"{INSERT}2/", "")]


def test_deletes_that_were_not_asked_for_are_not_read() -> None:
    objects = bucket(["10", "11"], ["10", "11"])
    assert read([pair("10"), pair("11", deletes=True)], objects) == [(f"{INSERT}10/", ""), (f"{INSERT}11/", f"{DELTA}11/")]


def test_deletes_alone_beside_the_named_ones_are_not_read() -> None:
    objects = bucket(["10", "11"], ["10", "11", "12"])
    found = read([pair("10", deletes=True), pair("11", deletes=True)], objects)
    assert found == [(f"{INSERT}10/", f"{DELTA}10/"), (f"{INSERT}11/", f"{DELTA}11/")]


def test_what_is_named_twice_is_imported_twice() -> None:
    assert read([pair("10"), pair("11"), pair("10")], bucket(["10", "11"])) == [(INSERT, ""), (f"{INSERT}10/", "")]


def test_a_path_without_a_slash_at_its_end_picks_what_begins_like_it() -> None:
    assert read([[f"{INSERT}1"]], bucket(["10", "11", "2"])) == [(f"{INSERT}1", "")]
    assert [s.insert for s in segments_of([f"{INSERT}1"], Keys(bucket(["10", "11", "2"])))] == [f"{INSERT}10/", f"{INSERT}11/"]


def test_pairs_without_objects_are_left_out() -> None:
    assert read([pair("10"), pair("77"), ["c/", "d/"]], bucket(["10"])) == [(f"{INSERT}10/", "")]
    assert read([pair("77")], bucket(["10"])) == []


names = st.text("0123", min_size=1, max_size=4)


@given(st.sets(names, min_size=1, max_size=12), st.data())
def test_the_imports_read_exactly_the_pairs(there: set[str], draw: Any) -> None:
    """Whatever lies in the bucket: as 2.3.5 reads an import, all of them together read what 2.4 would read of the job, each once."""
    deleted = draw.draw(st.sets(names, max_size=8))
    chosen = draw.draw(st.sets(st.sampled_from(sorted(there)), min_size=1))
    files = [pair(name, deletes=draw.draw(st.booleans())) for name in sorted(chosen)]
    keys = Keys(bucket(sorted(there), sorted(deleted)))
    expected = sorted(key for paths in files for key, _ in keys.below(paths[0]))
    expected_deletes = sorted(key for paths in files if len(paths) > 1 for key, _ in keys.below(paths[1]))
    imports = imports_of(files, keys)
    assert sorted(key for one in imports for key, _ in keys.below(one.insert)) == expected
    assert sorted(key for one in imports if one.delta for key, _ in keys.below(one.delta)) == expected_deletes


def test_files_are_shown_as_the_server_does() -> None:
    assert written([["a/", "b/"], ["c/"]]) == '[paths:"a/" paths:"b/" paths:"c/"]'


# ---- bodies ----------------------------------------------------------------------------------------------------------------------


def test_a_body_is_read_as_go_reads_it() -> None:
    content = json.dumps({"COLLECTIONNAME": "c", "files": [["a"]], "dbName": None, "more": 1}).encode()
    assert bind(content, CREATE) == {"dbName": "", "collectionName": "c", "partitionName": "", "files": [["a"]], "options": {}}
    assert bind(b'{"collectionId": 7, "segmentIDs": [1, 2]}', SEGMENTS) == {"dbName": "", "collectionID": 7, "segmentIDs": [1, 2]}


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 1801, "the request body should be nil, however {} is valid"),
        (b"{", 1801, "can only accept json format request, error"),
        (b"[]", 1801, "cannot unmarshal array into Go value"),
        (b"{}", 1802, "Field validation for 'JobId' failed on the 'required' tag"),
        (b'{"jobId": ""}', 1802, "'JobId'"),
        (b'{"jobId": 7}', 1801, "cannot unmarshal number into Go struct field .jobId of type string"),
    ],
)
def test_a_body_of_another_shape_is_refused(content: bytes, code: int, message: str) -> None:
    with pytest.raises(Refused) as caught:
        bind(content, JOB)
    assert caught.value.code == code
    assert message in caught.value.message


# ---- the port --------------------------------------------------------------------------------------------------------------------


def test_one_port_serves_both() -> None:
    """Whoever begins as HTTP/2 does is relayed, everything else goes to REST; the end closes both."""

    def echo(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while chunk := connection.recv(1000):
                connection.sendall(b"gRPC " + chunk)

    def rest(connection: socket.socket, _: Any) -> None:
        while chunk := connection.recv(1000):
            connection.sendall(b"REST " + chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        echoing = threading.Thread(target=echo, args=(listener,))
        echoing.start()
        mux = Mux(listener.getsockname()[1], rest)
        mux.start()
        address = ("127.0.0.1", mux.port)
        with socket.create_connection(address) as grpc, socket.create_connection(address) as http, socket.create_connection(address):
            http.sendall(b"POST /")
            assert http.recv(1000) == b"REST POST /"
            grpc.sendall(b"PR")
            grpc.sendall(b"I * HTTP/2.0")
            answer = b""
            while not answer.endswith(b"HTTP/2.0"):
                answer += grpc.recv(1000)
            assert answer.startswith(b"gRPC PRI")
            mux.stop()
            assert grpc.recv(1000) == http.recv(1000) == b""
        echoing.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
