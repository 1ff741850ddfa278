"""ObjectStore: one S3 bucket — list, read, write, delete.

The data plane is obstore (Rust ``object_store``); boto3 resolves credentials and does what obstore cannot.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .errors import NotInStorage, StorageDenied, StorageError
from .settings import S3Location, read_pem

if TYPE_CHECKING:
    import obstore.store

# A refreshed boto3 credential is good for ten minutes or more, so it is asked for again well before that.
_CREDENTIAL_LIFE = timedelta(minutes=9)
_PAGE = 1000
_CODE = re.compile(r"<Code>(\w+)</Code>")
_BUSY = re.compile(
    r"status code: (?:429|503)\b|[<(](?:Code>)?(?:SlowDown|ServiceUnavailable|TooManyRequests|RequestLimitExceeded|429|503)[<)]"
)
_MESSAGE = re.compile(r"<Message>([^<]{1,200})")


class StoredObject(NamedTuple):
    """One object as a listing shows it."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """One bucket.

    :param location: where the bucket is and how to reach it
    """

    def __init__(self, location: S3Location) -> None:
        self.location = location

    @cached_property
    def _session(self) -> Any:
        return self.location.session()

    @cached_property
    def endpoint(self) -> str:
        """Return scheme and host of the S3 service, without the bucket."""
        if self.location.endpoint_url:
            return self.location.endpoint_url.rstrip("/")
        return str(self.boto3_client().meta.endpoint_url)

    @cached_property
    def region(self) -> str:
        """Return the region requests are signed for."""
        return self.location.region or self._session.region_name or "us-east-1"

    @cached_property
    def client(self) -> obstore.store.S3Store:
        """Return the obstore client of this bucket; it repeats failed requests for up to a minute."""
        retries = {"max_retries": 8, "retry_timeout": timedelta(seconds=60), "backoff": {"init_backoff": timedelta(milliseconds=200)}}
        return self.open(f"{self.endpoint}/{self.location.bucket}", retries)

    def open(self, bucket_url: str, retries: dict[str, Any]) -> obstore.store.S3Store:
        """Return an obstore client that knows this bucket by name but sends its requests to ``bucket_url``.

        A copy request goes to the destination and names the source, so a client of the source bucket that sends to the
        destination's URL copies between two buckets.
        """
        from obstore.store import S3Store

        verify = self.location.verify
        options: dict[str, Any] = {
            "allow_http": urlsplit(bucket_url).scheme == "http",
            "connect_timeout": timedelta(seconds=10),
            "timeout": timedelta(seconds=300),
            "read_timeout": timedelta(seconds=60),
        }
        if verify is False:
            options["allow_invalid_certificates"] = True
        elif isinstance(verify, str):
            options["root_certificate"] = read_pem(verify, f"the CA bundle of {self.location},")
        return S3Store(
            self.location.bucket,
            # Named outright, lest AWS_* variables of the worker lead elsewhere.
            config={"endpoint": bucket_url, "virtual_hosted_style_request": True, "region": self.region, "skip_signature": False},
            client_options=options,  # type: ignore[arg-type]
            retry_config=retries,  # type: ignore[arg-type]
            credential_provider=_credential_provider(self._session),
        )

    def boto3_client(self, **config: Any) -> Any:
        """Return a boto3 client for this store; it is safe to share between threads."""
        from botocore.config import Config

        settings = {
            "retries": {"mode": "standard", "max_attempts": 5},
            "s3": {"addressing_style": "path" if self.location.endpoint_url else "auto"},
        }
        return self._session.client(
            "s3",
            endpoint_url=self.location.endpoint_url,
            region_name=self.location.region,
            verify=self.location.verify,
            config=Config(**{**settings, **config}),
        )

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Iterate over all objects below ``prefix`` (whole path parts), in key order, 1,000 a request."""
        import obstore

        with self.explained(f"list {prefix!r} in"):
            for page in obstore.list(self.client, prefix.strip("/") or None, chunk_size=_PAGE):
                for meta in page:
                    yield StoredObject(meta["path"], meta["size"], (meta["e_tag"] or "").strip('"'))

    def directories(self, prefix: str) -> list[str]:
        """Return the names of the directories directly below ``prefix``."""
        import obstore

        with self.explained(f"list {prefix!r} in"):
            found = obstore.list_with_delimiter(self.client, prefix.strip("/") or None)
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return an object's content; raises NotInStorage, and StorageError when it is larger than ``limit`` bytes."""
        import obstore

        with self.explained(f"read {key!r} from"):
            result = obstore.get(self.client, key)
            if limit is not None and result.meta["size"] > limit:
                raise StorageError(f"{key!r} in {self.location} has {result.meta['size']:,} bytes; at most {limit:,} were expected")
            return bytes(result.bytes())

    def write(self, key: str, content: bytes) -> None:
        """Write an object, replacing what was there."""
        import obstore

        with self.explained(f"write {key!r} to"):
            obstore.put(self.client, key, content)

    def exists(self, key: str) -> bool:
        """Return whether the object exists."""
        import obstore

        try:
            with self.explained(f"look for {key!r} in"):
                obstore.head(self.client, key)
        except NotInStorage:
            return False
        return True

    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects, 1,000 a request; those that do not exist count as deleted. Returns how many were named."""
        import obstore

        names = list(keys)
        with self.explained(f"delete {len(names):,} objects in"):
            for start in range(0, len(names), _PAGE):
                obstore.delete(self.client, names[start : start + _PAGE])
        return len(names)

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn obstore's and botocore's errors into ours, saying what was done, where, and which setting to look at."""
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, ClientError, BotoCoreError, OSError) as error:
            raise storage_error(error, f"cannot {doing} {self.location}") from None


def storage_error(error: BaseException, doing: str) -> StorageError:
    """Return our error for one of obstore's or botocore's."""
    text = _first_line(error)
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in str(error) or "NoSuchKey" in str(error):
        if "NoSuchBucket" in str(error) or "bucket does not exist" in str(error):
            return NotInStorage(f"{doing}: the bucket does not exist; create it or correct the bucket name")
        return NotInStorage(f"{doing}: not found")
    if any(sign in str(error) for sign in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")):
        return StorageDenied(
            f"{doing}: the access key, secret key or session token is wrong or expired; correct the aws connection ({text})"
        )
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or "AccessDenied" in str(error):
        if not _CODE.search(str(error)):  # the answer to a HEAD request has no body that says why
            return StorageDenied(
                f"{doing}: access denied; the access key or secret key is wrong, or the key lacks this permission on the bucket; "
                "correct the aws connection"
            )
        return StorageDenied(f"{doing}: access denied; the key lacks this permission on the bucket ({text})")
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return StorageDenied(f"{doing}: the aws connection has no usable credentials ({text})")
    return StorageError(f"{doing}: {text}")


def throttled(error: BaseException) -> bool:
    """Return whether the store asked for fewer requests. Only status and code are looked at: ids in a key may contain ``503``."""
    return _BUSY.search(str(error)) is not None


def transient(error: BaseException) -> bool:
    """Return whether the same request may succeed when it is repeated."""
    return throttled(error) or type(error).__name__ in (
        "GenericError",
        "JoinError",
        "EndpointConnectionError",
        "ReadTimeoutError",
        "ConnectTimeoutError",
    )


def _first_line(error: BaseException) -> str:
    """Return what the store said, without the XML and the debug dump around it."""
    text = str(error)
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if code:
        return code[1] + (f": {message[1]}" if message else "")
    text = text.partition("\n\nDebug source")[0]
    return " ".join(text.split())[:300] or type(error).__name__


def _credential_provider(session: Any) -> Callable[[], Any]:
    """Return what obstore asks for credentials: static ones are asked for once, temporary ones again before they expire."""
    lock = threading.Lock()
    credentials = session.get_credentials()
    if credentials is None:
        raise StorageDenied("no AWS credentials were found; set a key in the aws connection or give the worker a role")

    def provide() -> dict[str, Any]:
        with lock:
            frozen = credentials.get_frozen_credentials()
        refreshable = hasattr(credentials, "refresh_needed")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _CREDENTIAL_LIFE if refreshable else None,
        }

    return provide
