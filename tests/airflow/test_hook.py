"""The hook: where each value comes from, connections of every form, and what it says when they are wrong."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.settings import Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from demo.servers import MilvusServer
from tests.airflow.stack import Stack, in_environment, milvus_connection

Connect = Callable[..., None]

YAML = """
milvus:
  address: yaml.test
  port: 19539
  user: yaml_user
  password: planted-yaml-password
minio:
  address: s3.yaml.test
  port: 9009
  accessKeyID: AKPLANTEDYAML
  secretAccessKey: planted-yaml-secret
  bucketName: yaml-bucket
  rootPath: yaml-root
  backupBucketName: yaml-backups
  backupRootPath: yaml-backup-root
log:
  level: info
"""


def keys(settings: Settings, *, backup: bool = False) -> tuple[str, str, str | None]:
    """Return the access key, secret key and token that a storage resolves to."""
    location = settings.backup_storage if backup else settings.milvus_storage
    found = location.session().get_credentials().get_frozen_credentials()
    return found.access_key, found.secret_key, found.token


@pytest.fixture
def aws(set_connection: Connect) -> Connect:
    """Return ``aws(conn_id, **extra)``: sets an aws connection with a key of its own."""

    def set_one(conn_id: str, **extra: Any) -> None:
        set_connection(conn_id, conn_type="aws", login=f"AK-{conn_id}", password=f"planted-{conn_id}", extra=extra)

    return set_one


# --- precedence: argument, connection, backup.yaml, default --------------------------------------------------------------


def test_without_anything_the_defaults_hold(set_connection: Connect, aws: Connect) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default")
    settings = MilvusBackupHook().settings
    assert (settings.milvus.host, settings.milvus.port, settings.milvus.database, settings.milvus.secure) == ("h", 19530, "default", False)
    assert (settings.milvus_storage.bucket, settings.milvus_storage.root_path) == ("a-bucket", "files")
    assert (settings.backup_storage.bucket, settings.backup_storage.root_path) == ("a-bucket", "backup")
    assert keys(settings)[0] == keys(settings, backup=True)[0] == "AK-aws_default"
    assert settings.milvus_storage.verify is True


def test_backup_yaml_wins_over_defaults_and_needs_no_connection(airflow_db: object, tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(YAML)
    import yaml

    for config in (str(path), path, yaml.safe_load(YAML)):
        settings = MilvusBackupHook("milvus_never_made", config=config).settings
        assert (settings.milvus.host, settings.milvus.port, settings.milvus.user) == ("yaml.test", 19539, "yaml_user")
        assert settings.milvus.password == "planted-yaml-password"
        assert (settings.milvus_storage.bucket, settings.milvus_storage.root_path) == ("yaml-bucket", "yaml-root")
        assert (settings.backup_storage.bucket, settings.backup_storage.root_path) == ("yaml-backups", "yaml-backup-root")
        assert settings.milvus_storage.endpoint_url == settings.backup_storage.endpoint_url == "http://s3.yaml.test:9009"
        assert keys(settings)[:2] == keys(settings, backup=True)[:2] == ("AKPLANTEDYAML", "planted-yaml-secret")
        assert "planted" not in repr(settings)


def test_connections_win_over_backup_yaml(set_connection: Connect, aws: Connect) -> None:
    import yaml

    set_connection(
        "milvus_default",
        conn_type="milvus",
        host="conn.test",
        port=1234,
        login="conn_user",
        password="planted-conn",
        extra={"bucket_name": "conn-bucket", "root_path": "conn-root", "aws_conn_id": "conn_s3"},
    )
    aws("conn_s3", endpoint_url="http://conn.s3.test")
    settings = MilvusBackupHook(config=yaml.safe_load(YAML)).settings
    assert (settings.milvus.host, settings.milvus.port, settings.milvus.user, settings.milvus.password) == (
        "conn.test",
        1234,
        "conn_user",
        "planted-conn",
    )
    assert (settings.milvus_storage.bucket, settings.milvus_storage.root_path) == ("conn-bucket", "conn-root")
    assert settings.milvus_storage.endpoint_url == "http://conn.s3.test"
    assert keys(settings)[0] == keys(settings, backup=True)[0] == "AK-conn_s3"
    assert (settings.backup_storage.bucket, settings.backup_storage.root_path) == ("yaml-backups", "yaml-backup-root")


def test_arguments_win_over_connections_and_backup_yaml(set_connection: Connect, aws: Connect) -> None:
    import yaml

    set_connection("other", conn_type="milvus", host="h", extra={"aws_conn_id": "conn_s3"})
    for conn_id in ("conn_s3", "argument_s3", "backup_s3"):
        aws(conn_id)
    arguments = {"backup_bucket": "argument-bucket", "backup_root_path": "argument-root", "config": yaml.safe_load(YAML)}
    settings = MilvusBackupHook("other", "argument_s3", "backup_s3", **arguments).settings
    assert (settings.backup_storage.bucket, settings.backup_storage.root_path) == ("argument-bucket", "argument-root")
    assert (keys(settings)[0], keys(settings, backup=True)[0]) == ("AK-argument_s3", "AK-backup_s3")
    settings = MilvusBackupHook("other", "argument_s3", **arguments).settings
    assert keys(settings, backup=True)[0] == "AK-argument_s3", "the backup storage is opened like Milvus's own"


def test_ignored_keys_of_backup_yaml_are_named_once(
    set_connection: Connect, aws: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default")
    (tmp_path / "backup.yaml").write_text(YAML)
    caplog.set_level(logging.INFO)
    hook = MilvusBackupHook(config=str(tmp_path / "backup.yaml"))
    assert hook.settings
    assert hook.settings
    assert hook.get_conn()
    said = caplog.text or capsys.readouterr().out
    assert said.count("these keys have no meaning here and are ignored: log.level") == 1
    assert "planted" not in said


# --- forms of connections ------------------------------------------------------------------------------------------------


def test_a_connection_may_be_a_uri(monkeypatch: pytest.MonkeyPatch, aws: Connect) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_MILVUS_DEFAULT",
        "milvus://root:p%40ss-planted@milvus.test:19531/db1?secure=true&bucket_name=b&root_path=r%2Fs&aws_conn_id=s3&server_name=n",
    )
    aws("s3")
    settings = MilvusBackupHook().settings
    milvus = settings.milvus
    assert (milvus.host, milvus.port, milvus.database) == ("milvus.test", 19531, "db1")
    assert (milvus.user, milvus.password) == ("root", "p@ss-planted")
    assert (milvus.secure, milvus.server_name) == (True, "n")
    assert (settings.milvus_storage.bucket, settings.milvus_storage.root_path) == ("b", "r/s")
    assert keys(settings)[0] == "AK-s3"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"extra": {"token": "planted-token"}}, ("", "", "planted-token")),
        ({"password": "planted-api-key"}, ("", "", "planted-api-key")),
        ({"login": "root", "password": "planted-pass"}, ("root", "planted-pass", "")),
        ({"login": "root", "password": "planted-pass", "extra": {"token": "planted-token"}}, ("root", "planted-pass", "planted-token")),
        ({}, ("", "", "")),
    ],
)
def test_user_and_password_or_a_token(set_connection: Connect, aws: Connect, fields: dict[str, Any], expected: Any) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h", **fields)
    aws("aws_default")
    milvus = MilvusBackupHook().settings.milvus
    assert (milvus.user, milvus.password, milvus.token) == expected
    assert "planted" not in f"{milvus!r} {milvus}"


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("h", None, ("h", 19530, False)),
        ("http://h:1234", None, ("h", 1234, False)),
        ("https://h", None, ("h", 19530, True)),
        ("https://h:1234", 4321, ("h", 4321, True)),
    ],
)
def test_a_host_may_be_a_url(set_connection: Connect, aws: Connect, host: str, port: int | None, expected: Any) -> None:
    set_connection("milvus_default", conn_type="milvus", host=host, port=port)
    aws("aws_default")
    milvus = MilvusBackupHook().settings.milvus
    assert (milvus.host, milvus.port, milvus.secure) == expected


@pytest.mark.parametrize("value", [True, "true", "True", "yes", "1", False, "false", "no", "", None])
def test_secure_may_be_a_flag_or_its_name(set_connection: Connect, aws: Connect, value: Any) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h", extra={"secure": value})
    aws("aws_default")
    assert MilvusBackupHook().settings.milvus.secure is (str(value).lower() in ("true", "yes", "1"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "connection 'milvus_default' names no host"),
        ({"host": "h", "extra": {"secure": "perhaps"}}, "secure of connection 'milvus_default' is 'perhaps'; write true or false"),
        ({"host": "http://[h"}, r"host 'http://\[h' of connection 'milvus_default' is not a host name or URL"),
        ({"host": "h", "extra": {"root_path": "../x"}}, r"root path '../x' contains `..`"),
    ],
)
def test_a_wrong_field_is_named(set_connection: Connect, aws: Connect, fields: dict[str, Any], message: str) -> None:
    set_connection("milvus_default", conn_type="milvus", **fields)
    aws("aws_default")
    with pytest.raises(ConfigError, match=message):
        MilvusBackupHook().settings  # noqa: B018


# --- test_connection -----------------------------------------------------------------------------------------------------


def test_a_good_connection_says_what_it_found(connected: Stack) -> None:
    good, said = MilvusBackupHook().test_connection()
    found, _, databases = said.partition(", databases: ")
    assert (good, found) == (True, f"Milvus v2.3.5-lite at 127.0.0.1:{connected.milvus.port}")
    assert {"default", "second"} <= set(databases.split(", "))


def test_a_wrong_password_is_said_without_the_password(stack: Stack, milvus_b: MilvusServer) -> None:
    wrong = {**milvus_connection(milvus_b, "b-bucket", "aws_default"), "password": "planted-wrong"}
    with in_environment({**stack.connections(), "milvus_default": wrong}):
        good, said = MilvusBackupHook().test_connection()
    assert not good
    assert "check login, password or token of the connection" in said
    assert "connection 'milvus_default'" in said
    assert "planted" not in said


def test_a_milvus_that_is_away_and_a_missing_connection_are_said(
    set_connection: Connect, aws: Connect, airflow_db: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_milvus_backup.core import rpc

    monkeypatch.setattr(rpc, "CONNECT_SECONDS", 0.5)
    set_connection("milvus_default", conn_type="milvus", host="127.0.0.1", port=1, password="planted-key")
    aws("aws_default")
    good, said = MilvusBackupHook().test_connection()
    assert not good
    assert said.startswith("Milvus at 127.0.0.1:1 (connection 'milvus_default') did not answer within")
    assert "planted" not in said
    good, said = MilvusBackupHook("milvus_never_made").test_connection()
    assert not good
    assert "milvus_never_made" in said


# --- aws connections -----------------------------------------------------------------------------------------------------


def test_a_session_token_and_a_region_are_used(set_connection: Connect, aws: Connect) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default", aws_session_token="planted-token", region_name="eu-central-1")
    settings = MilvusBackupHook().settings
    assert keys(settings) == ("AK-aws_default", "planted-aws_default", "planted-token")
    assert ObjectStore(settings.milvus_storage).region == "eu-central-1"
    assert "planted" not in repr(settings)


@pytest.mark.parametrize(
    ("extra", "endpoint"),
    [
        ({"endpoint_url": "http://all.test"}, "http://all.test"),
        ({"endpoint_url": "http://all.test", "service_config": {"s3": {"endpoint_url": "http://s3.test"}}}, "http://s3.test"),
        ({"service_config": {"s3": {"endpoint_url": "http://s3.test"}}}, "http://s3.test"),
        ({"service_config": {"sts": {"endpoint_url": "http://sts.test"}}}, None),
    ],
)
def test_the_endpoint_of_s3_wins_over_that_of_all_services(set_connection: Connect, aws: Connect, extra: Any, endpoint: str | None) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default", **extra)
    assert MilvusBackupHook().settings.milvus_storage.endpoint_url == endpoint


@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False), ("/ca.pem", "/ca.pem")])
def test_verify_is_passed_on(set_connection: Connect, aws: Connect, value: Any, expected: Any) -> None:
    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default", **({} if value is None else {"verify": value}))
    assert MilvusBackupHook().settings.milvus_storage.verify == expected


@pytest.fixture
def sts() -> Iterator[tuple[str, list[str]]]:
    """Run an STS that gives out keys for 20 minutes, so that each use asks again; yields its URL and the roles asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            expires = (datetime.now(timezone.utc) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = (
                '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
                f"<AccessKeyId>ASIA{len(asked)}</AccessKeyId><SecretAccessKey>planted-sts</SecretAccessKey><SessionToken>t{len(asked)}</SessionToken>"
                f"<Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_an_assumed_role_is_refreshed_while_a_long_copy_runs(set_connection: Connect, aws: Connect, sts: tuple[str, list[str]]) -> None:
    from airflow_provider_milvus_backup.core import store

    url, asked = sts
    set_connection("milvus_default", conn_type="milvus", host="h")
    role = "arn:aws:iam::123456789012:role/copier"
    aws("aws_default", role_arn=role, region_name="us-east-1", service_config={"sts": {"endpoint_url": url}})
    location = MilvusBackupHook().settings.milvus_storage
    provide = store._credential_provider(location.session())
    first, second = provide(), provide()
    assert "role%2Fcopier" in asked[0]
    assert first["access_key_id"] != second["access_key_id"], "keys about to expire are asked for again"
    assert second["token"] == f"t{len(asked)}"
    assert timedelta(0) < second["expires_at"] - datetime.now(timezone.utc) < timedelta(minutes=10)


def test_static_keys_are_asked_for_once(set_connection: Connect, aws: Connect) -> None:
    from airflow_provider_milvus_backup.core import store

    set_connection("milvus_default", conn_type="milvus", host="h")
    aws("aws_default")
    given = store._credential_provider(MilvusBackupHook().settings.milvus_storage.session())()
    assert json.loads(json.dumps(given)) == {
        "access_key_id": "AK-aws_default",
        "secret_access_key": "planted-aws_default",
        "token": None,
        "expires_at": None,
    }
