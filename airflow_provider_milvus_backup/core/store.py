"""ObjectStore: one S3 bucket — list, read, write, delete.

The data plane is obstore (Rust ``object_store``); boto3 resolves credentials and does what obstore cannot.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from .errors import NotInStorage, ObjectChanged, StorageDenied, StorageError
from .patience import Backoff, Patience
from .settings import S3Location, read_pem
from .storage_errors import storage_error, unconditional

if TYPE_CHECKING:
    import obstore.store

# A refreshed boto3 credential is good for ten minutes or more, so it is asked for again well before that.
_CREDENTIAL_LIFE = timedelta(minutes=9)
_PAGE = 1000
#: Seconds for which a request is repeated when the store is away or busy.
BUDGET = 60.0

T = TypeVar("T")


class StoredObject(NamedTuple):
    """One object as a listing shows it."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """One bucket.

    Every request is repeated for up to a minute while the store is away, busy or breaks connections, once it has answered at all; a
    store that never answered is reported at once.

    :param location: where the bucket is and how to reach it
    :param patience: what ends the repetitions early
    """

    def __init__(self, location: S3Location, patience: Patience | None = None) -> None:
        self.location = location
        self.patience = patience or Patience()
        #: Whether the store keeps to conditional writes; None until the first one.
        self.conditional: bool | None = None
        self._answered = False

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
        return (_stored(meta) for meta in self._listed(prefix))

    def dated(self, prefix: str, after: str | None = None) -> Iterator[tuple[StoredObject, datetime]]:
        """Iterate as :meth:`objects` does, with when each was written, by the store's clock; those behind the key ``after`` only."""
        return ((_stored(meta), meta["last_modified"]) for meta in self._listed(prefix, after))

    def _listed(self, prefix: str, after: str | None = None) -> Iterator[Any]:
        import obstore

        below, last, doing = prefix.strip("/") or None, after, f"list {prefix!r} in"
        listing: Any = None

        def page() -> Any:
            nonlocal listing
            if listing is None:  # a listing that broke goes on behind the last key that was seen
                listing = iter(obstore.list(self.client, below, offset=last, chunk_size=_PAGE))
            try:
                return next(listing, ())
            except BaseException:
                listing = None
                raise

        while found := self._repeat(doing, page):
            yield from found
            last = found[-1]["path"]

    def directories(self, prefix: str) -> list[str]:
        """Return the names of the directories directly below ``prefix``."""
        import obstore

        found = self._repeat(f"list {prefix!r} in", lambda: obstore.list_with_delimiter(self.client, prefix.strip("/") or None))
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def directories_now(self, prefix: str) -> tuple[list[str], datetime]:
        """Return what :meth:`directories` does, whatever the names are, and what time it is by the store's clock."""
        below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        asked = {"Bucket": self.location.bucket, "Prefix": below, "Delimiter": "/"}
        pages = self._repeat(f"list {prefix!r} in", lambda: list(self.s3.get_paginator("list_objects_v2").paginate(**asked)))
        return [found["Prefix"][len(below) : -1] for page in pages for found in page.get("CommonPrefixes", ())], _clock(pages[0])

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return an object's content; raises NotInStorage, and StorageError when it is larger than ``limit`` bytes."""
        return self.read_version(key, limit)[0]

    def read_version(self, key: str, limit: int | None = None) -> tuple[bytes, str]:
        """Return an object's content and ETag; the ETag is what :meth:`swap` takes."""
        import obstore

        def get() -> tuple[bytes, str]:
            result = obstore.get(self.client, key)
            if limit is not None and result.meta["size"] > limit:
                raise StorageError(f"{key!r} in {self.location} has {result.meta['size']:,} bytes; at most {limit:,} were expected")
            return bytes(result.bytes()), result.meta["e_tag"] or ""

        return self._repeat(f"read {key!r} from", get)

    def write(self, key: str, content: bytes) -> None:
        """Write an object, replacing what was there."""
        import obstore

        self._repeat(f"write {key!r} to", lambda: obstore.put(self.client, key, content))

    def create(self, key: str, content: bytes) -> str:
        """Write an object that does not exist yet; returns its ETag.

        The first call finds out whether the store keeps to conditions, by trying to create the object once more. Where it does not
        (:attr:`conditional` is then False), existence is looked at before writing, which leaves a moment in which two writers both win.

        :raises ObjectChanged: it exists already, with other content
        """
        etag = self._write_if(key, content, None)
        if self.conditional is None:
            try:
                self._put_if(key, content, None)
                self.conditional = False
            except Exception as error:  # noqa: BLE001 (obstore's errors have no root of their own below Exception)
                if isinstance(storage_error(error, ""), ObjectChanged):
                    self.conditional = True
        return etag

    def swap(self, key: str, content: bytes, etag: str) -> str:
        """Replace the object that :meth:`read_version` or :meth:`create` gave this ETag for; returns the new ETag.

        :raises ObjectChanged: the object has become another one
        """
        return self._write_if(key, content, etag)

    def _write_if(self, key: str, content: bytes, etag: str | None) -> str:
        def write() -> str:
            try:
                return self._put_if(key, content, etag)
            except Exception as error:
                if isinstance(storage_error(error, ""), ObjectChanged):
                    with contextlib.suppress(NotInStorage):
                        there, found = self.read_version(key)
                        if there == content:  # ours: the answer to an earlier attempt was lost
                            return found
                raise

        return self._repeat(f"write {key!r} to", write)

    def _put_if(self, key: str, content: bytes, etag: str | None) -> str:
        import obstore

        if self.conditional is not False:
            try:
                return obstore.put(self.client, key, content, mode="create" if etag is None else {"e_tag": etag})["e_tag"] or ""
            except Exception as error:
                if not unconditional(error):
                    raise
                self.conditional = False
        try:
            there: str | None = obstore.head(self.client, key)["e_tag"] or ""
        except FileNotFoundError:
            there = None
        if there != etag:
            raise ObjectChanged(f"cannot write {key!r} to {self.location}: it exists already, or is no longer the one that was read")
        return obstore.put(self.client, key, content)["e_tag"] or ""

    def head(self, key: str) -> StoredObject:
        """Return an object's size and ETag; raises NotInStorage."""
        import obstore

        meta = self._repeat(f"look for {key!r} in", lambda: obstore.head(self.client, key))
        return _stored(meta)

    def head_with_checksum(self, key: str, part: int | None = None) -> dict[str, Any]:
        """Return boto3's answer to HEAD, with the checksum of an object where the store has one; raises NotInStorage.

        :param part: of an object that was written in parts, this one
        """
        asked = {"Bucket": self.location.bucket, "Key": key, "ChecksumMode": "ENABLED", **({} if part is None else {"PartNumber": part})}
        return dict(self._repeat(f"look for {key!r} in", lambda: self.s3.head_object(**asked)))

    def exists(self, key: str) -> bool:
        """Return whether the object exists."""
        try:
            self.head(key)
        except NotInStorage:
            return False
        return True

    def age(self, key: str) -> float:
        """Return how many seconds ago an object was written, by the store's own clock; raises NotInStorage."""
        written, now = self.times(key)
        return (now - written).total_seconds()

    def times(self, key: str) -> tuple[datetime, datetime]:
        """Return when an object was written and what time it is, both by the store's own clock; raises NotInStorage."""
        answer = self._repeat(f"look for {key!r} in", lambda: self.s3.head_object(Bucket=self.location.bucket, Key=key))
        return answer["LastModified"], _clock(answer)

    @cached_property
    def s3(self) -> Any:
        """Return the boto3 client of this store for what obstore cannot, always the same one; threads may share it."""
        return self.boto3_client(max_pool_connections=32)

    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects, 1,000 a request; those that do not exist count as deleted. Returns how many were named."""
        import obstore

        names = list(keys)
        for start in range(0, len(names), _PAGE):
            page = names[start : start + _PAGE]
            self._repeat(f"delete {len(page):,} objects in", lambda page=page: obstore.delete(self.client, page))  # type: ignore[misc]
        return len(names)

    def _repeat(self, doing: str, action: Callable[[], T]) -> T:
        """Return what ``action`` returns; repeat it while that may help."""
        backoff = Backoff(BUDGET, self.patience)
        while True:
            try:
                with self.explained(doing):
                    result = action()
            except StorageError as error:
                # "Not found" is an answer, too.
                self._answered = self._answered or not error.passing
                if not (error.passing and self._answered and backoff.again(str(error))):
                    raise
            else:
                self._answered = True
                return result

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn obstore's and botocore's errors into ours, saying what was done, where, and which setting to look at."""
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, ClientError, BotoCoreError, OSError) as error:
            raise storage_error(error, f"cannot {doing} {self.location}") from None


def _stored(meta: Any) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], (meta["e_tag"] or "").strip('"'))


def _clock(answer: Any) -> datetime:
    """Return when the store gave an answer of boto3, by its own clock."""
    from email.utils import parsedate_to_datetime

    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said) if said else datetime.now(timezone.utc)


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
