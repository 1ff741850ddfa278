"""What both ends are: how to reach Milvus, the storage Milvus uses, and the storage backups are kept in.

Plain data; the Airflow hook (or any other program) fills it in. ``label`` says in a user's words where the values come from
(``connection 'milvus_default'``), so that an error can point at the field to fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    import boto3.session

GIB = 1024**3
DEFAULT_CONCURRENCY = 256
DEFAULT_MULTIPART_THRESHOLD = GIB // 4


def read_pem(path: str, purpose: str) -> bytes:
    """Return the content of a certificate or key file; raises ConfigError that names the file and what it is for."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{purpose} {path!r} cannot be read: {error.strerror}; correct the path, or put the file there") from None


def without_userinfo(text: str) -> str:
    """Return a text in which no URL shows a user and password."""
    return re.sub(r"//[^/@\s]+@", "//…@", text)


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """How to reach one Milvus.

    ``rest_endpoint`` is where its REST interface is, empty where that shares gRPC's port; ``management_endpoint`` is its port 9091.
    """

    host: str
    port: int = 19530
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    database: str = "default"
    secure: bool = False
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""
    label: str = ""
    rest_endpoint: str = ""
    management_endpoint: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f" ({self.label})" if self.label else "")


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, the root path inside it, and how to reach it.

    ``session`` makes the boto3 session whose credentials are used; it is called once, when the first request is made.
    ``verify`` is False, True or the path of a CA bundle, as boto3 takes it.
    """

    bucket: str
    root_path: str
    session: Callable[[], boto3.session.Session] = field(repr=False)
    endpoint_url: str | None = None
    region: str | None = None
    verify: bool | str = True
    label: str = ""

    @property
    def uri(self) -> str:
        """Return ``s3://bucket/root/path``."""
        return f"s3://{self.bucket}/{self.root_path}".rstrip("/")

    def __str__(self) -> str:
        endpoint = without_userinfo(self.endpoint_url or "")
        hints = [hint for hint in (endpoint, self.label) if hint]
        return f"{self.uri} ({', '.join(hints)})" if hints else self.uri


@dataclass(frozen=True, slots=True)
class Settings:
    """Both ends, and how hard to work."""

    milvus: MilvusAddress
    milvus_storage: S3Location
    backup_storage: S3Location
    #: Object copies in flight at most.
    concurrency: int = DEFAULT_CONCURRENCY
    #: Objects of more bytes are copied in parts; no store copies more than 5 GiB at once.
    multipart_threshold: int = DEFAULT_MULTIPART_THRESHOLD
    #: Copy bytes through this process even where the store could copy by itself.
    streaming: bool = False
    #: Bytes of one import job at most; one segment may exceed it alone.
    max_job_bytes: int = 4 * GIB

    @property
    def copying(self) -> dict[str, Any]:
        """Return what :func:`.copier.copy_objects` takes of these."""
        return {"concurrency": self.concurrency, "streaming": self.streaming, "multipart_threshold": self.multipart_threshold}
