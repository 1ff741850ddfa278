"""Garbage collection that cannot be paused: one warning, or an error before anything is copied; and it always goes on in the end."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from airflow_provider_milvus_backup.core.errors import (
    AuthError,
    ServerError,
    ServerUnreachable,
    UnsupportedServer,
)
from airflow_provider_milvus_backup.core.gc_pause import (
    GC_REQUIRE,
    management_url,
    ticket_of,
)
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.unit.management_port import INVALID, Clock, Lines, Milvus, New, making, refused, serving, until
from tests.unit.test_store_tls import certificate


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new(log: Lines, clock: Clock) -> Iterator[New]:
    with making(log, clock) as make:
        yield make


REMEDY = "set management_endpoint of the Milvus connection"
FAILURES: list[tuple[Milvus | None, type[ServerError], str]] = [
    (None, ServerUnreachable, rf"does not answer \(.*refused.*\); {REMEDY}"),
    (Milvus(hang=threading.Event()), ServerUnreachable, rf"did not pause garbage collection within 0.2 s; {REMEDY}"),
    (Milvus("2.3.3"), UnsupportedServer, rf"Milvus can since 2\.3\.4; if this one is newer, {REMEDY}"),
    (Milvus(answer=(200, "<html>Attu</html>")), UnsupportedServer, rf"is not Milvus's management port \(HTTP status 200\); {REMEDY}"),
    (Milvus(answer=(200, '{"msg": "no"}')), UnsupportedServer, "is not Milvus's management port"),
    (Milvus(answer=(302, "")), UnsupportedServer, r"is not Milvus's management port \(HTTP status 302\)"),
    (Milvus(answer=(502, "<html>")), ServerUnreachable, rf"does not reach Milvus \(HTTP status 502\); {REMEDY}"),
    (
        Milvus(answer=(500, f'{{"msg": "failed to pause garbage collection, pause duration not valid, {INVALID}"}}')),
        ServerError,
        r'pause duration not valid, strconv\.ParseInt: parsing "": invalid syntax',
    ),
    (Milvus(answer=(500, '{"msg": "failed, too many pause records"}')), ServerError, "too many pause records"),
    (Milvus(root="root:pw"), AuthError, r"lets only root pause garbage collection \(HTTP status 401\)"),
]


def request_seconds(milvus: Milvus | None) -> float:
    """Return how long to wait for one of these: for long, unless it is the one that hangs."""
    return 0.2 if milvus and milvus.hang else 60.0


@contextmanager
def failing(milvus: Milvus | None) -> Iterator[str]:
    if milvus is None:
        yield refused()
        return
    milvus.hang = threading.Event() if milvus.hang else None
    with serving(milvus):
        yield milvus.url


@pytest.mark.parametrize(("milvus", "kind", "text"), FAILURES)
def test_auto_says_once_that_it_is_not_paused_why_and_what_that_means(
    new: New, log: Lines, milvus: Milvus | None, kind: type[ServerError], text: str
) -> None:
    with failing(milvus) as url:
        with new(url, request_seconds=request_seconds(milvus)) as pause:
            pause.hold([7, 8])
            pause.hold([7, 8])
            pause.check()
        assert len(log.warnings) == 1
        assert re.search(text, log.warnings[0])
        assert log.warnings[0].startswith("Milvus's garbage collection is not paused during this backup: ")
        assert "Segments that are compacted away while they are copied are planned again" in log.warnings[0]
        assert log.lines == []


@pytest.mark.parametrize(("milvus", "kind", "text"), FAILURES)
def test_require_raises_before_anything_is_copied(new: New, log: Lines, milvus: Milvus | None, kind: type[ServerError], text: str) -> None:
    with failing(milvus) as url, new(url, mode=GC_REQUIRE, request_seconds=request_seconds(milvus)) as pause:
        with pytest.raises(ServerError, match=text) as raised:
            pause.hold([7, 8])
        assert type(raised.value) is kind
    assert log.warnings == []


def test_a_milvus_that_hangs_is_asked_for_one_collection_only(new: New, log: Lines) -> None:
    with serving(Milvus(hang=threading.Event())) as milvus:
        with new(milvus.url, request_seconds=0.2) as pause:
            pause.hold(range(1000))
        until(lambda: bool(milvus.requests))
        assert len(milvus.requests) == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".invalid"])
def test_a_host_name_that_cannot_be_one_is_unreachable(new: New, host: str) -> None:
    with new(management_url(MilvusAddress(host)), mode=GC_REQUIRE) as pause, pytest.raises(ServerUnreachable, match=REMEDY):
        pause.hold([7])


def test_a_resume_that_fails_is_one_warning_that_says_when_the_pause_ends(new: New, clock: Clock, log: Lines) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, mode=GC_REQUIRE) as pause:
            pause.hold([7])
            clock.now += 600
            pause.hold([8])
            milvus.answer = (500, '{"msg": "failed to resume garbage collection, node offline"}')
            clock.now += 600
        assert len(milvus.asked("resume")) == 2
    (warning,) = log.warnings
    assert warning.startswith("garbage collection of Milvus could not be resumed: Milvus at http://127.0.0.1:")
    assert warning.endswith("the pause runs out by itself after at most 50 min 00 s")
    assert "node offline" in warning


def test_a_milvus_that_is_gone_at_the_end_is_waited_for_once(new: New, log: Lines) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url) as pause:
            pause.hold(range(1, 41))
            milvus.hang = threading.Event()
            pause._client.timeout = 0.3
        until(lambda: bool(milvus.asked("resume")))
        assert len(milvus.asked("resume")) == 1
    assert len(log.warnings) == 1


def test_user_and_password_are_sent_only_to_a_milvus_that_asks_for_them(new: New) -> None:
    with serving(Milvus()) as milvus, new(milvus.url, login=("root", "pw")) as pause:
        pause.hold([7])
        assert milvus.authorizations == [None]
    with serving(Milvus(root="root:pw")) as milvus:
        with new(milvus.url, login=("root", "pw"), mode=GC_REQUIRE) as pause:
            pause.hold([7])
            assert milvus.paused == {7}
        assert milvus.paused == set()
        assert milvus.authorizations[0] is None


def test_a_wrong_password_is_not_shown(new: New) -> None:
    with serving(Milvus(root="root:pw")) as milvus, new(milvus.url, login=("root", "s3cret"), mode=GC_REQUIRE) as pause:
        with pytest.raises(AuthError, match="give the Milvus connection root's password") as refusal:
            pause.hold([7])
        assert "s3cret" not in str(refusal.value)


def test_behind_tls_the_certificate_is_checked(new: New, tmp_path: Path) -> None:
    signed, key = certificate("milvus", None)
    (tmp_path / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(Milvus(), server) as milvus:
        with new(milvus.url, mode=GC_REQUIRE) as pause, pytest.raises(ServerUnreachable, match=r"certificate.*verify failed"):
            pause.hold([7])
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        with new(milvus.url, mode=GC_REQUIRE, verify=trusting) as pause:
            pause.hold([7])
            assert milvus.paused == {7}
        assert milvus.paused == set()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"msg": {"OK": 1}}', "null", "OK", ""])
def test_an_answer_that_is_not_milvuss_is_no_pause(text: str) -> None:
    with pytest.raises(UnsupportedServer, match="is not Milvus's management port"):
        ticket_of(200, text, "pause garbage collection", "http://h:9091")
