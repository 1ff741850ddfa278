"""Connections, arguments and backup.yaml → core settings. Precedence: argument, connection, backup.yaml, default.

Shared by the hook and the trigger, which get hold of connections in different ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_milvus_backup._compat import mask_secret
from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.settings import MilvusAddress, S3Location

if TYPE_CHECKING:
    import boto3.session

    from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, YamlStorage

DEFAULT_BUCKET = "a-bucket"
DEFAULT_ROOT_PATH = "files"
DEFAULT_BACKUP_ROOT_PATH = "backup"
DEFAULT_AWS_CONN_ID = "aws_default"


def milvus_address(conn_id: str, connection: Any, extra: Mapping[str, Any], config: BackupYaml) -> MilvusAddress:
    """Return how to reach Milvus.

    :param connection: the ``milvus`` connection, None when only backup.yaml says where Milvus is
    :raises ConfigError: neither says where Milvus is, or a field has a value that cannot be used
    """
    label = f"connection {conn_id!r}" if connection else "backup.yaml"
    host, port, secure = _host(str((connection and connection.host) or config.milvus_host or ""), label)
    if not host:
        raise ConfigError(f"{label} names no host; set the host of Milvus")
    user = str((connection and connection.login) or "")
    password = str((connection and connection.password) or "")
    token = str(extra.get("token") or "")
    if password and not user and not token:
        user, password, token = "", "", password
    if not (user or token):
        user, password = config.milvus_user or "", config.milvus_password or ""
    for secret in (token, password):
        if secret:
            mask_secret(secret)
    return MilvusAddress(
        host=host,
        port=int((connection and connection.port) or port or config.milvus_port or 19530),
        user=user,
        password=password,
        token=token,
        database=str((connection and connection.schema) or "default"),
        # Not "the connection wins": the form of Airflow 2.11 saves false for a box that nobody touched.
        secure=_flag(extra.get("secure"), f"secure of {label}") or secure or bool(config.milvus_secure),
        ca_cert=str(extra.get("ca_cert") or config.milvus_ca_cert or ""),
        client_cert=str(extra.get("client_cert") or config.milvus_client_cert or ""),
        client_key=str(extra.get("client_key") or config.milvus_client_key or ""),
        server_name=str(extra.get("server_name") or config.milvus_server_name or ""),
        label=label,
        rest_endpoint=str(extra.get("rest_endpoint") or config.rest_endpoint or ""),
        management_endpoint=str(extra.get("management_endpoint") or config.management_endpoint or ""),
    )


def s3_location(bucket: str, root_path: str, aws_conn_id: str | None, config: YamlStorage, label: str) -> S3Location:
    """Return where a bucket is and how to reach it.

    :param aws_conn_id: the ``aws`` connection; None when nothing names one, which leaves the keys of backup.yaml, else ``aws_default``
    """
    root = layout.clean_root(root_path)
    if aws_conn_id is None and (config.access_key or config.use_iam):
        return S3Location(bucket, root, _yaml_session(config), config.endpoint_url, config.region, label=f"{label}, keys of backup.yaml")
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    aws_conn_id = aws_conn_id or DEFAULT_AWS_CONN_ID
    hook = S3Hook(aws_conn_id=aws_conn_id)
    verify = hook.verify
    return S3Location(
        bucket,
        root,
        cache(lambda: hook.get_session(region_name=hook.region_name)),
        endpoint_url=hook.conn_config.get_service_endpoint_url("s3") or config.endpoint_url,
        region=hook.region_name or config.region,
        verify=True if verify is None else verify,
        label=f"{label}, connection {aws_conn_id!r}",
    )


def _yaml_session(config: YamlStorage) -> Callable[[], boto3.session.Session]:
    def session() -> boto3.session.Session:
        import boto3.session

        if config.use_iam:
            return boto3.session.Session(region_name=config.region)
        for secret in (config.secret_key, config.session_token):
            if secret:
                mask_secret(secret)
        return boto3.session.Session(config.access_key, config.secret_key, config.session_token, region_name=config.region)

    return session


def _host(text: str, label: str) -> tuple[str, int | None, bool]:
    """Return (host, port, TLS) of a host field, in which people also write URLs."""
    if "://" not in text:
        return text.strip(), None, False
    try:
        url = urlsplit(text.strip())
        return url.hostname or "", url.port, url.scheme in ("https", "grpcs")
    except ValueError as error:
        raise ConfigError(f"host {text!r} of {label} is not a host name or URL: {error}") from None


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered in ("", "false", "no", "off", "0"):
            return False
        if lowered in ("true", "yes", "on", "1"):
            return True
        raise ConfigError(f"{name} is {value!r}; write true or false")
    return bool(value)
