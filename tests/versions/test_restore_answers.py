"""What becomes of a restore when REST answers with an error, or when it is not Milvus that answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core import rest
from airflow_provider_milvus_backup.core.errors import AuthError, ServerError, ServerUnreachable, UnsupportedServer
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.rest import LIST, MilvusRest
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract.refusals import Refusal

from .restoring import BACK, CREATE, DESCRIBE, NAME, answering, creates, jobs, once_each, segments
from .worlds import World

HTML = "<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
RECORDS = json.dumps({"code": 0, "data": {"records": []}})


def refusing(code: int, reason: str) -> Callable[[], None]:
    """Return what answers with an error of Milvus."""

    def refuse() -> None:
        raise Refusal(code, reason)

    return refuse


def dropping() -> None:
    """End the connection without an answer."""
    raise ConnectionResetError


def asked(*answers: tuple[int, str], once: bool = False, answered: bool = False) -> dict[str, object]:
    """Ask what gives these answers, and return its data."""
    with answering(*answers) as url:
        client = MilvusRest(MilvusAddress("milvus", label="connection 'm'", rest_endpoint=url), Patience(timeout=250))
        client.answered = answered
        try:
            return client.call(LIST, {}, "list import jobs", "default", once=once)
        finally:
            client.close()


# ---- HTTP status 200 -----------------------------------------------------------------------------------------------------------------


def test_an_error_inside_status_200_is_told_in_the_words_of_milvus(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    world.at(CREATE, refusing(2100, "failed to broadcast import: something about files: importing data failed"))
    with pytest.raises(ServerError, match=r"something about files: importing data failed \(code 2100\)"):
        world.restore(suffix="_back")
    assert len(creates(world)) == 1, "what Milvus refuses is not tried again"
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_early_releases_of_2_4_call_success_200() -> None:
    assert asked((200, json.dumps({"code": 200, "data": {"jobId": "4567"}}))) == {"jobId": "4567"}


def test_code_200_with_a_message_is_a_partition_that_is_not_there() -> None:
    with pytest.raises(ServerError, match=r"partition not found\[partition=p\] \(code 200\)") as failed:
        asked((200, json.dumps({"code": 200, "message": "partition not found[partition=p]"})))
    assert failed.value.code == 200


@pytest.mark.parametrize("document", [{"code": 0, "data": {}}, {"code": 0, "data": {"jobId": None}}, {"code": 0}])
def test_a_job_without_an_id_is_no_job(milvus: Callable[..., World], document: object) -> None:
    world = milvus("2.6.4")
    segments(world, 1)
    world.backup()
    with answering((200, RECORDS), (200, RECORDS), (200, json.dumps(document)), (200, RECORDS)) as url:
        world.address = {"rest_endpoint": url}
        with pytest.raises(ServerError, match=r"accepted an import into .* and named no job"):
            world.restore(suffix="_back")


def test_a_rate_limit_passes(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    limited = refusing(8, "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded[rate=1]")
    world.at(CREATE, limited, limited)
    world.at(DESCRIBE, limited)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(creates(world)) == 3
    assert len(jobs(world)) == 1


# ---- other statuses ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_names_the_connection(status: int) -> None:
    for body in (json.dumps({"code": 1800, "message": "user hasn't authenticated"}), HTML):
        with pytest.raises(AuthError, match=r"connection 'm'.*check login, password or token") as failed:
            asked((status, body))
        assert failed.value.code == status
        assert "<" not in str(failed.value)


@pytest.mark.parametrize("body", ["404 page not found", HTML])
def test_a_path_that_is_not_there_is_nothing_milvus_knows(body: str) -> None:
    with pytest.raises(UnsupportedServer, match=r"does not know how to list import jobs"):
        asked((404, body))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again_where_milvus_has_answered_before(status: int) -> None:
    assert asked((status, HTML), (status, json.dumps({"code": 1, "message": "timeout"})), (200, RECORDS), answered=True) == {"records": []}


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_what_passes_is_asked_again_in_the_beginning_too(status: int) -> None:
    assert asked((status, HTML), (200, RECORDS)) == {"records": []}


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_what_milvus_may_be_working_on_is_not_asked_twice(status: int) -> None:
    with pytest.raises(ServerUnreachable, match=r"cannot list import jobs now: not ready") as failed:
        asked((status, json.dumps({"code": 1, "message": "not ready"})), (200, RECORDS), once=True, answered=True)
    assert failed.value.unclear
    assert failed.value.retryable


def test_what_was_turned_away_unread_is_asked_again_in_any_case() -> None:
    assert asked((429, ""), (200, RECORDS), once=True, answered=True) == {"records": []}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, HTML),
        (200, ""),
        (200, "[]"),
        (200, '"code"'),
        (200, '{"code": "0", "data": {}}'),
        (200, '{"status": "ok"}'),
        (200, "\x00\xff"),
        (302, ""),
        (418, HTML),
    ],
)
def test_what_is_not_milvus_is_said_to_be_none(status: int, body: str) -> None:
    with pytest.raises(
        UnsupportedServer, match=rf"what answers at http://.* is not Milvus's REST interface \(HTTP status {status}\)"
    ) as failed:
        asked((status, body))
    assert "nginx" not in str(failed.value)


def test_a_milvus_that_never_answers_is_reported_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "CONNECT_SECONDS", 0.5)
    client = MilvusRest(MilvusAddress("127.0.0.1", 1, label="connection 'm'"), Patience(timeout=250))
    with pytest.raises(ServerUnreachable, match=r"connection 'm'.*no answer from http://127\.0\.0\.1:1"):
        client.call(LIST, {}, "list import jobs", "default")
    client.close()


# ---- in the middle of a restore ------------------------------------------------------------------------------------------------------


def test_a_restore_goes_on_when_questions_are_not_answered_for_a_while(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    rows = segments(world, 3)
    world.backup()
    world.at(DESCRIBE, dropping, dropping)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 1


def test_a_restore_goes_on_when_the_proxy_restarts(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    rows = segments(world, 3)
    world.backup()
    world.at(DESCRIBE, world.server.disconnect, world.server.disconnect)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)


def test_what_answers_is_not_milvus_and_the_restore_takes_grpc(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    with answering((200, HTML)) as url:
        there = replace(world.settings, milvus=replace(world.settings.milvus, rest_endpoint=url))
        world.restore(suffix="_back", settings=there)
    assert world.model.rows(BACK) == rows
    assert world.said("one segment each, because REST cannot be reached: what answers at http://")
    assert len(world.server.recorder.of("Import")) == 2
    assert world.model.rows(NAME) == rows


def test_a_gateway_with_nothing_behind_it_is_not_waited_for_long(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "CONNECT_SECONDS", 0.5)
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    with answering((502, HTML)) as url:
        world.restore(suffix="_back", settings=replace(world.settings, milvus=replace(world.settings.milvus, rest_endpoint=url)))
    assert world.model.rows(BACK) == rows
    assert world.said("REST cannot be reached: Milvus at")
    assert world.said("HTTP status 502")
