"""What a restore says to Milvus's REST interface, who it says it is, and where it finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, ServerUnreachable
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.rest import LIST, MilvusRest
from tests.contract.profiles import PROFILES
from tests.contract.tls import authority

from .restoring import BACK, CREATE, DESCRIBE, GET_PROGRESS, NAME, creates, front, headers, segments
from .worlds import World

PASSWORDS = {"root": "Milvus"}


def logged_in(world: World, **address: Any) -> World:
    """Let the connection log in."""
    world.address = {"user": "root", "password": "Milvus", "label": "connection 'milvus_test'", **address}
    return world


# ---- what is asked -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20", "3.0.1"])
def test_a_job_names_its_files_and_its_options_are_strings(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = segments(world, 3)
    world.model.delete(NAME, [0])
    world.backup()
    world.restore(suffix="_back")
    bodies = [body for body in creates(world) if "backup" in body["options"]]
    assert bodies, "no job imports data"
    for body in bodies:
        assert set(body) == {"dbName", "collectionName", "partitionName", "files", "options"}
        assert (body["dbName"], body["partitionName"]) == ("default", "_default")
        assert body["options"].pop("backup") == body["options"].pop("skip_disk_quota_check") == "true"
        assert body["options"] == ({"storage_version": "2"} if PROFILES[version].storage_version == 2 else {})
        assert all(path.endswith("/") for paths in body["files"] for path in paths), "siblings are listed too"
    assert sum(len(body["files"]) for body in bodies) == 3
    assert {*world.model.rows(BACK)["_default"]} == {*rows["_default"]} - {0}


@pytest.mark.parametrize("version", ["2.4.5", "2.6.4"])
def test_there_is_no_empty_path_where_nothing_was_deleted(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    assert [len(paths) for body in creates(world) for paths in body["files"]] == [1, 1]


def test_milvus_may_work_on_a_job_longer_than_on_a_question(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    assert {sent["request-timeout"] for sent in headers(world, CREATE)} == {"300"}
    assert {sent["request-timeout"] for sent in headers(world, DESCRIBE)} == {"60"}


@pytest.mark.parametrize(("version", "first"), [("2.4.5", GET_PROGRESS), ("2.4.24", DESCRIBE)])
def test_jobs_are_asked_for_by_the_name_that_the_version_knows(milvus: Callable[..., World], version: str, first: str) -> None:
    world = milvus(version)
    rows = segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    asked = world.server.requests
    assert asked[first] >= 1
    # The newer name is tried once, never again.
    assert asked[DESCRIBE] == 1 if first == GET_PROGRESS else asked[GET_PROGRESS] == 0


# ---- who asks ------------------------------------------------------------------------------------------------------------------------


def test_user_and_password_and_the_database_go_with_every_request(milvus: Callable[..., World]) -> None:
    world = logged_in(milvus("2.6.4", passwords=PASSWORDS))
    model = world.model
    kept = {}
    for database in ("alpha", "beta"):
        model.create_database(database)
        kept[database] = segments(world, 2, (database, "docs"))
    kept["default"] = segments(world, 1)
    world.backup(collections=["alpha.*", "beta.*", "default.*"])
    world.restore(suffix="_back")
    for database, rows in kept.items():
        assert model.rows((database, "docs_back")) == rows
    jobs = {str(job.id): job.collection[0] for job in model.jobs.values()}
    asked = [came for came in world.server.recorder.requests if came.name == DESCRIBE]
    assert {jobs[came.body["jobId"]] for came in asked} == {"alpha", "beta", "default"}
    # A privilege to describe a job is one of its database, which the body cannot name.
    assert all(came.headers["db-name"] == jobs[came.body["jobId"]] for came in asked)
    assert all(body["dbName"] == sent["db-name"] for body, sent in zip(creates(world), headers(world, CREATE), strict=True))
    assert {sent["authorization"] for sent in headers(world, CREATE) + headers(world, DESCRIBE)} == {"Bearer root:Milvus"}


def test_an_api_key_is_a_bearer_token(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4", api_keys={"the-key"})
    world.address = {"token": "the-key"}
    rows = segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert {sent["authorization"] for sent in headers(world, CREATE)} == {"Bearer the-key"}


def test_without_a_login_nothing_is_sent(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    segments(world, 1)
    world.backup()
    world.restore(suffix="_back")
    assert all("authorization" not in sent for sent in headers(world, CREATE) + headers(world, DESCRIBE))


def test_a_wrong_password_is_an_error_that_names_the_connection(milvus: Callable[..., World]) -> None:
    world = logged_in(milvus("2.6.4", passwords=PASSWORDS))
    segments(world, 1)
    world.backup()
    world.address["password"] = "planted-wrong"
    with pytest.raises(AuthError, match=r"connection 'milvus_test'.*check login, password or token") as failed:
        world.restore(suffix="_back")
    assert "planted-wrong" not in str(failed.value) + "".join(world.log.lines)


def test_a_password_that_rest_alone_refuses_is_an_error_that_names_the_connection(milvus: Callable[..., World]) -> None:
    world = logged_in(milvus("2.6.4", passwords=PASSWORDS))
    rest = MilvusRest(replace(world.settings.milvus, password="planted-wrong"), Patience(timeout=250))
    try:
        with pytest.raises(AuthError, match=r"connection 'milvus_test'.*hasn't authenticated; check login, password or token") as failed:
            rest.call(LIST, {}, "list import jobs", "default")
    finally:
        rest.close()
    assert "planted-wrong" not in str(failed.value)


def test_a_missing_privilege_ends_the_restore_and_leaves_nothing(milvus: Callable[..., World]) -> None:
    world = logged_in(milvus("2.6.4", passwords=PASSWORDS))
    segments(world, 2)
    world.backup()
    world.server.accounts.forbidden["root"] = {CREATE}
    with pytest.raises(AuthError, match=r"connection 'milvus_test'.*permission deny to root in the `default` database"):
        world.restore(suffix="_back")
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_a_privilege_to_list_all_jobs_is_not_needed_to_take_the_way_over_rest(milvus: Callable[..., World]) -> None:
    world = logged_in(milvus("2.6.4", passwords=PASSWORDS))
    rows = segments(world, 2)
    world.backup()
    denied = world.server.accounts.forbidden
    denied["root"] = {"jobs/import/list"}
    world.at("jobs/import/list", lambda: None, denied.clear)  # the first question is the one for all databases
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(creates(world)) == 1


# ---- where ---------------------------------------------------------------------------------------------------------------------------


def test_tls_with_an_own_authority_and_a_client_certificate(milvus: Callable[..., World], tmp_path: Path) -> None:
    files = authority(tmp_path, mutual=True)
    world = milvus("2.6.4", certificates=files.server)
    world.address = {
        "secure": True,
        "ca_cert": str(files.ca),
        "client_cert": str(files.client_certificate),
        "client_key": str(files.client_key),
    }
    rows = segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(creates(world)) == 1, "gRPC was used instead"


def one_request(world: World, **address: Any) -> None:
    rest = MilvusRest(replace(world.settings.milvus, **address), Patience(timeout=250))
    try:
        rest.call(LIST, {}, "list import jobs", "default", seconds=60)
    finally:
        rest.close()


def test_a_certificate_that_does_not_fit_is_refused(milvus: Callable[..., World], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files, other = authority(tmp_path, mutual=True), authority(tmp_path / "other")
    world = milvus("2.6.4", certificates=files.server)
    pair = {"client_cert": str(files.client_certificate), "client_key": str(files.client_key)}
    good: dict[str, Any] = {"secure": True, "ca_cert": str(files.ca), **pair}
    one_request(world, **good)
    one_request(world, **good, server_name="localhost")
    with pytest.raises(ServerUnreachable, match=r"certificate verify failed"):
        one_request(world, **good, server_name="milvus.internal")
    with pytest.raises(ServerUnreachable, match=r"certificate verify failed"):
        one_request(world, **{**good, "ca_cert": str(other.ca)})
    with pytest.raises(ServerUnreachable):
        one_request(world, secure=True, ca_cert=str(files.ca))
    (tmp_path / "no.pem").write_text("no certificate")
    for wrong in ("ca_cert", "client_cert", "client_key"):
        with pytest.raises(ConfigError, match=r"no usable PEM file"):
            one_request(world, **{**good, wrong: str(tmp_path / "no.pem")})
    with pytest.raises(ConfigError, match=r"gone.pem"):
        one_request(world, **{**good, "ca_cert": str(tmp_path / "gone.pem")})


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_rest_on_a_port_of_its_own(milvus: Callable[..., World], scheme: str) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    with front(world) as number:
        world.address = {"rest_endpoint": f"{scheme}127.0.0.1:{number}"}
        world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert {sent["host"] for sent in headers(world, CREATE) + headers(world, DESCRIBE)} == {f"127.0.0.1:{number}"}


def test_rest_over_tls_where_grpc_is_plain(milvus: Callable[..., World], tmp_path: Path) -> None:
    files = authority(tmp_path)
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    with front(world, files.server) as number:
        world.address = {"rest_endpoint": f"https://127.0.0.1:{number}/", "ca_cert": str(files.ca)}
        world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert {sent["host"] for sent in headers(world, CREATE)} == {f"127.0.0.1:{number}"}


@pytest.mark.parametrize("endpoint", ["ftp://milvus:80", "http://root:planted@milvus:1", "http://milvus:x", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(milvus: Callable[..., World], endpoint: str) -> None:
    world = milvus("2.6.4")
    segments(world, 1)
    world.backup()
    world.address = {"rest_endpoint": endpoint, "label": "connection 'milvus_test'"}
    with pytest.raises(ConfigError, match=r"rest_endpoint of connection 'milvus_test' is not a URL") as failed:
        world.restore(suffix="_back")
    assert "planted" not in str(failed.value)
