"""A backup.yaml of milvus-backup, v1 or v2, says exactly what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, YamlStorage, read
from airflow_provider_milvus_backup.core.errors import ConfigError
from tests.unit.backup_yamls import MILVUS_SIDE, V1, V2, full, v1, v2, written


def test_every_key_of_v1_is_read_and_what_has_no_meaning_is_listed(tmp_path: Path) -> None:
    ignored = (
        "backup.keepTempFiles",
        "backup.parallelism.backupCollection",
        "backup.parallelism.backupSegment",
        "backup.parallelism.importJob",
        "backup.parallelism.restoreCollection",
        "cloud.apikey",
        "log.console",
        "log.file.filename",
        "log.level",
        "milvus.etcd.endpoints",
    )
    assert read(written(tmp_path, V1)) == full(ignored=ignored)


def test_every_key_of_v2_is_read_and_what_has_no_meaning_is_listed(tmp_path: Path) -> None:
    ignored = (
        "backup.concurrency.collections",
        "backup.concurrency.segments",
        "log.level",
        "milvus.etcd.endpoints",
        "restore.concurrency.collections",
        "restore.concurrency.importJobs",
        "server.debugMode",
        "zillizCloud.apiKey",
    )
    assert read(str(written(tmp_path, V2))) == full(rest_endpoint="https://milvus-rest.example.com", ignored=ignored)


@pytest.mark.parametrize("text", [V1, V2])
def test_parsed_content_means_the_same_as_the_file(tmp_path: Path, text: str) -> None:
    assert read(yaml.safe_load(text)) == read(written(tmp_path, text))


@pytest.mark.parametrize("text", [V1, V2])
def test_secrets_are_not_in_the_repr(text: str) -> None:
    shown = repr(read(yaml.safe_load(text)))
    assert not [secret for secret in ("s3cret", "'sk'", "'tok'", "my-cloud-key") if secret in shown]


@pytest.mark.parametrize("config", [{}, {"configVersion": "v1"}, {"configVersion": "V2"}])
def test_defaults_of_the_tool_are_never_filled_in(config: dict[str, Any]) -> None:
    assert read(config) == BackupYaml()


def test_environment_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MILVUS_ADDRESS", "MILVUS_USER", "MINIO_ADDRESS", "MILVUS_STORAGE_AUTH_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "from-env")
    assert read({}) == read({"configVersion": "v2"}) == BackupYaml()


def test_capitals_in_keys_do_not_matter() -> None:
    found = read({"MILVUS": {"Address": "m", "tlsmode": 1}, "Minio": {"BUCKETNAME": "b"}})
    assert (found.milvus_host, found.milvus_secure, found.storage.bucket) == ("m", True, "b")


def test_a_key_written_twice_in_different_capitals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"milvus\.Address is there twice"):
        read({"milvus": {"address": "a", "Address": "b"}})


def test_numbers_and_booleans_may_be_written_as_text() -> None:
    found = read(
        {"milvus": {"port": "19530"}, "minio": {"useIAM": "Yes", "crossStorage": "true"}, "backup": {"gcPause": {"enable": "off"}}}
    )
    assert (found.milvus_port, found.storage.use_iam, found.streaming) == (19530, True, True)


@pytest.mark.parametrize("password", ["0123", "1e5", "yes", "2026-11-22", "12:30:00", "0x1F"])
def test_an_unquoted_password_in_a_file_stays_as_it_was_written(tmp_path: Path, password: str) -> None:
    assert read(written(tmp_path, f"milvus:\n  password: {password}\n")).milvus_password == password


def test_a_key_without_a_value_counts_as_absent(tmp_path: Path) -> None:
    found = read(written(tmp_path, "minio:\n  bucketName: a\n  backupBucketName:\n  backupRootPath: ~\n  rootPath: r\nmilvus:\n"))
    assert (found.backup_storage.bucket, found.backup_storage.root_path, found.ignored) == ("a", "r", ())


def test_yaml_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "x: &s {bucketName: b}\nconfigVersion: v2\nmilvus:\n  storage:\n    <<: *s\n    rootPath: r\n"
    assert read(written(tmp_path, text)).storage == YamlStorage(bucket="b", root_path="r")


# ---- inheritance ---------------------------------------------------------------------------------------------------------------


def test_v1_backup_storage_inherits_every_key_it_does_not_set() -> None:
    config = yaml.safe_load(V1)
    config["minio"] = {key: value for key, value in config["minio"].items() if not key.startswith("backup")}
    found = read(config)
    assert found.backup_storage == found.storage == MILVUS_SIDE


def test_v1_backup_root_path_is_the_one_of_milvus_when_unset() -> None:
    assert v1(rootPath="files").backup_storage.root_path == "files"
    assert v1(rootPath="files", backupRootPath="backup").backup_storage.root_path == "backup"


def test_v2_backup_storage_inherits_all_but_the_root_path() -> None:
    storage = {"provider": "aws", "bucketName": "b", "rootPath": "files", "auth": {"type": "iam"}, "region": "eu-west-1"}
    found = v2(storage)
    assert found.storage.root_path == "files"
    assert found.backup_storage == YamlStorage(provider="aws", bucket="b", use_iam=True, region="eu-west-1")


def test_milvus_storage_never_inherits_from_the_backup_storage() -> None:
    assert v1(backupAddress="b", backupBucketName="c", backupUseIAM=True).storage == YamlStorage()
    assert v2(backup={"address": "b", "bucketName": "c"}).storage == YamlStorage()


def test_part_of_an_endpoint_can_be_inherited() -> None:
    assert v1(address="minio", port=9000, backupPort=9001).backup_storage.endpoint_url == "http://minio:9001"
    assert v1(address="minio", useSSL=True, backupUseSSL=False).backup_storage.endpoint_url == "http://minio:9000"


def test_an_empty_text_ends_inheritance() -> None:
    found = v1(token="tok", region="eu-west-1", rootPath="files", backupToken="", backupRegion="", backupRootPath="").backup_storage
    assert (found.session_token, found.region, found.root_path) == (None, None, "")


def test_an_empty_root_path_is_the_root_of_the_bucket_and_not_unset() -> None:
    assert v1(rootPath="").storage.root_path == ""
    assert v1().storage.root_path is None


# ---- endpoints -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "port", "ssl", "url"),
    [
        ("minio", 9000, None, "http://minio:9000"),
        ("minio", None, None, "http://minio:9000"),
        ("minio", 9000, True, "https://minio:9000"),
        ("storage.googleapis.com", 443, True, "https://storage.googleapis.com"),
        ("oss-cn-hangzhou.aliyuncs.com", 80, False, "http://oss-cn-hangzhou.aliyuncs.com"),
        ("10.0.0.1", "443", "false", "http://10.0.0.1:443"),
        ("fd00::1", 9000, False, "http://[fd00::1]:9000"),
        ("s3.dualstack.eu-west-1.amazonaws.com", 443, True, "https://s3.dualstack.eu-west-1.amazonaws.com"),
        ("s3-fips.us-east-1.amazonaws.com", 443, True, "https://s3-fips.us-east-1.amazonaws.com"),
        ("vpce-1.s3.eu-west-1.vpce.amazonaws.com", 443, True, "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com"),
        ("s3.amazonaws.com.evil.example", 443, True, "https://s3.amazonaws.com.evil.example"),
    ],
)
def test_the_endpoint_is_made_of_address_port_and_tls(address: str, port: Any, ssl: Any, url: str) -> None:
    assert v1(address=address, port=port, useSSL=ssl).storage.endpoint_url == url
    assert v2({"address": address, "port": port, "useSSL": ssl}).storage.endpoint_url == url


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("s3.amazonaws.com", None),
        ("s3.us-west-2.amazonaws.com", "us-west-2"),
        ("S3.EU-West-1.amazonaws.com", "eu-west-1"),
        ("s3-ap-southeast-1.amazonaws.com", "ap-southeast-1"),
        ("s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ],
)
def test_plain_aws_has_no_endpoint_and_its_address_names_the_region(address: str, region: str | None) -> None:
    assert v1(address=address, port=443, useSSL=True).storage == YamlStorage(region=region)
    assert v1(address=address, region="eu-north-1").storage == YamlStorage(region="eu-north-1")


def test_a_backup_on_aws_does_not_inherit_the_endpoint_of_minio() -> None:
    found = v1(address="minio", port=9000, backupAddress="s3.us-east-1.amazonaws.com").backup_storage
    assert (found.endpoint_url, found.region) == (None, "us-east-1")


@pytest.mark.parametrize("address", ["http://minio", "minio:9000", "minio/bucket", "a b", "user@host"])
def test_an_address_that_is_more_than_a_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"minio\.address is .*host name or IP address alone"):
        v1(address=address)
    with pytest.raises(ConfigError, match=r"milvus\.address"):
        read({"milvus": {"address": address}})


# ---- providers and credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_as", "provider"),
    [(name, name) for name in ("minio", "s3", "aws", "gcp", "aliyun", "tencent", "hwc")]
    + [("ali", "aliyun"), ("alibaba", "aliyun"), ("AliCloud", "aliyun"), ("tc", "tencent"), ("MinIO", "minio")],
)
def test_every_store_that_speaks_s3_is_accepted_under_all_its_names(written_as: str, provider: str) -> None:
    assert v1(storageType=written_as).storage.provider == provider
    assert v1(cloudProvider=written_as).backup_storage.provider == provider
    assert v1(backupStorageType=written_as).backup_storage.provider == provider
    assert read({"storage": {"storageType": written_as}}).storage.provider == provider
    assert v2({"provider": written_as}).storage.provider == provider


@pytest.mark.parametrize("provider", ["azure", "gcpnative", "local", "nonsense"])
def test_a_store_that_does_not_speak_s3_is_refused_by_key_and_value(provider: str) -> None:
    with pytest.raises(ConfigError, match=rf"config: minio\.backupStorageType is '{provider}'"):
        v1(backupStorageType=provider)
    with pytest.raises(ConfigError, match=rf"config: milvus\.storage\.provider is '{provider}'"):
        v2({"provider": provider})


def test_keys_do_not_count_where_the_machine_role_does() -> None:
    found = v1(useIAM=True, accessKeyID="minioadmin", secretAccessKey="minioadmin").storage
    assert found == YamlStorage(use_iam=True)


@pytest.mark.parametrize(("kind", "use_iam"), [("static", False), ("iam", True), ("default", True)])
def test_v2_names_the_kind_of_credentials(kind: str, use_iam: bool) -> None:
    assert v2({"auth": {"type": kind}}).storage.use_iam is use_iam
    with pytest.raises(ConfigError, match=r"backup\.storage\.auth\.type is 'sharedKey'"):
        v2(backup={"auth": {"type": "sharedKey"}})


def test_a_backup_with_keys_of_its_own_may_sit_beside_a_milvus_with_a_role() -> None:
    found = v2({"auth": {"type": "iam"}}, {"auth": {"type": "static", "accessKeyID": "a", "secretAccessKey": "b"}})
    assert found.storage == YamlStorage(use_iam=True)
    assert found.backup_storage == YamlStorage(use_iam=False, access_key="a", secret_key="b")


# ---- TLS, transfer -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "pair", "expected"),
    [
        (0, True, (False, None, None)),
        (1, True, (True, None, None)),
        (2, True, (True, "c", "k")),
        (2, False, (True, None, None)),
        (None, True, (None, "c", "k")),
    ],
)
def test_v1_presents_a_client_certificate_in_mutual_mode_only(mode: int | None, pair: bool, expected: Any) -> None:
    found = read({"milvus": {"tlsMode": mode, **({"mtlsCertPath": "c", "mtlsKeyPath": "k"} if pair else {"mtlsCertPath": ""})}})
    assert (found.milvus_secure, found.milvus_client_cert, found.milvus_client_key) == expected


@pytest.mark.parametrize(("mode", "secure"), [("disabled", False), ("server", True), ("Mutual", True)])
def test_v2_names_the_tls_mode(mode: str, secure: bool) -> None:
    grpc = {"tlsMode": mode, "mtlsCertPath": "c", "mtlsKeyPath": "k"}
    assert read({"configVersion": "v2", "milvus": {"grpc": grpc}}).milvus_secure is secure


def test_v2_mutual_tls_without_a_key_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="tlsMode mutual needs mtlsCertPath and mtlsKeyPath"):
        read({"configVersion": "v2", "milvus": {"grpc": {"tlsMode": "mutual", "mtlsCertPath": "c"}}})


@pytest.mark.parametrize(("cross", "streaming"), [(True, True), (False, None), (None, None)])
def test_v1_cross_storage_streams_and_otherwise_the_endpoints_decide(cross: bool | None, streaming: bool | None) -> None:
    assert v1(crossStorage=cross).streaming is streaming


@pytest.mark.parametrize(("mode", "streaming"), [("auto", None), ("direct", False), ("streaming", True)])
def test_v2_names_the_transfer_mode(mode: str, streaming: bool | None) -> None:
    assert read({"configVersion": "v2", "transfer": {"mode": mode}}).streaming is streaming
