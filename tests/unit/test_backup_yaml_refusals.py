"""A backup.yaml that cannot be used is refused by file and key, and without secrets."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, read
from airflow_provider_milvus_backup.core.errors import ConfigError
from tests.unit.backup_yamls import BUSY, written

# ---- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"milvus": {"port": "abc"}}, "config: milvus.port is 'abc', not a port"),
        ({"milvus": {"port": 0}}, "config: milvus.port is '0', not a port"),
        ({"milvus": {"port": 65536}}, "config: milvus.port is '65536', not a port"),
        ({"milvus": {"port": 1.5}}, "config: milvus.port is '1.5', not a port"),
        ({"milvus": {"port": True}}, "config: milvus.port is 'True', not a port"),
        ({"milvus": {"port": [1]}}, "config: milvus.port must be a single value, not a list"),
        ({"milvus": {"tlsMode": 3}}, "config: milvus.tlsMode is '3', not 0 (no TLS)"),
        ({"milvus": {"tlsMode": "server"}}, "config: milvus.tlsMode is 'server', not 0 (no TLS)"),
        ({"configVersion": "v2", "milvus": {"grpc": {"tlsMode": 1}}}, "milvus.grpc.tlsMode is '1', not disabled, server or mutual"),
        ({"minio": {"useSSL": "maybe"}}, "config: minio.useSSL"),
        ({"minio": {"address": "m", "useSSL": "maybe"}}, "config: minio.useSSL is 'maybe', not true or false"),
        ({"minio": {"useIAM": 2}}, "config: minio.useIAM is '2', not true or false"),
        ({"backup": {"parallelism": {"copyData": -1}}}, "config: backup.parallelism.copyData is '-1', not a number"),
        ({"configVersion": "v2", "transfer": {"mode": "fast"}}, "config: transfer.mode is 'fast', not auto, direct or streaming"),
        ({"configVersion": "v3"}, "config: configVersion is 'v3', not v1 or v2"),
        ({"configVersion": 2}, "config: configVersion is '2', not v1 or v2"),
        ({"milvus": "localhost"}, "config: milvus must be a section"),
        ({"milvus": {"address": {"host": "x"}}}, "config: milvus.address must be a value, not a section"),
        ({"transfer": {"mode": "auto"}}, "config: transfer.mode is a key of schema v2; write `configVersion: v2` into the file"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_what_it_should_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(config)
    assert message in str(caught.value)


def test_an_unknown_key_is_listed_and_not_refused() -> None:
    assert read({"milvus": {"adress": "typo"}, "extra": [1, 2]}).ignored == ("extra", "milvus.adress")
    assert read({"configVersion": "v2", "minio": {"address": "v1 key"}}).ignored == ("minio.address",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds nothing"),
        ("# only a comment\n", "holds nothing"),
        ("- a\n- b\n", "holds no keys"),
        ("just text", "holds no keys"),
        ("milvus:\n  password: 'topsecret\n", "is not valid YAML at line"),
        ("milvus:\n  password: *topsecret\n", "is not valid YAML at line 2"),
        ("milvus:\n  password: !topsecret x\n", "is not valid YAML at line 2"),
        ("milvus: {topsecret: [}\n", "is not valid YAML at line 1"),
        ("\x00topsecret", "is not valid YAML"),
        ("milvus: &loop\n  again: *loop\n", "nested too deeply"),
        ("[" * 400, "is not valid YAML"),
    ],
)
def test_an_unreadable_file_is_refused_by_name_and_its_content_stays_out_of_the_message(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "topsecret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_file_that_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read .*No such file"):
        read(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("config", [None, 3, ["backup.yaml"], b"backup.yaml"])
def test_what_is_neither_path_nor_content_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="not the path or the content"):
        read(config)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_bytes(b"milvus:\n  password: \xff\xfe\xfa\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read(path)


SECRETS = ("milvus.password", "minio.secretAccessKey", "minio.token", "minio.backupSecretAccessKey", "minio.backupToken")


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("value", [["topsecret"], {"topsecret": {"deep": 1}}])
def test_a_secret_of_the_wrong_type_is_refused_without_showing_it(key: str, value: Any) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError) as caught:
        read({section: {name: value}})
    assert key in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_credentials_inside_an_address_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"milvus": {"address": "http://user:topsecret@host:9091"}})
    assert "topsecret" not in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2) | st.dates()
WORDS = """configVersion milvus minio backup storage grpc address port tlsMode auth type provider storageType bucketName
rootPath useSSL backupAddress backupPort gcPause enable transfer mode concurrency rest endpoint"""
KEYS = st.sampled_from(WORDS.split())


@settings(BUSY, max_examples=50)
@given(st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8), max_size=4))
def test_any_content_is_read_or_refused_with_a_config_error(config: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(read(config), BackupYaml)
