"""What object storage answers when it refuses or fails: obstore's and botocore's errors → ours, and which are worth another attempt."""

from __future__ import annotations

import re

from .errors import NotInStorage, ObjectChanged, StorageDenied, StorageError
from .settings import without_userinfo

_CODE = re.compile(r"<Code>(\w+)</Code>")
_BUSY = re.compile(
    r"status code: (?:429|503)\b|"
    r"[<(](?:Code>)?(?:SlowDown(?:Read|Write)?|ServiceUnavailable|TooManyRequests|RequestLimitExceeded|429|503)[<)]"
)
#: What botocore says of a server's failure; obstore has an error of its own for those.
_FAILED = re.compile(r"error occurred \((?:InternalError|RequestTimeout|OperationAborted|500|502|504)\)")
#: The second form is that of a single key among those that one request deletes.
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d\b|\(code: (?:AccessDenied|MethodNotAllowed|InvalidRequest)\)")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})")
_UNCONDITIONAL = re.compile(r"NotImplemented|status code: 501\b|A header you provided implies functionality that is not implemented")


def storage_error(error: BaseException, doing: str) -> StorageError:
    """Return our error for one of obstore's or botocore's."""
    explained = error if isinstance(error, StorageError) else _explained(error, doing)
    explained.passing = explained.passing or transient(error)
    return explained


def _explained(error: BaseException, doing: str) -> StorageError:
    text = _first_line(error)
    # botocore's answer to a HEAD request has no code but the status.
    if isinstance(error, FileNotFoundError) or any(sign in str(error) for sign in ("NoSuchBucket", "NoSuchKey", "occurred (404)")):
        if "NoSuchBucket" in str(error) or "bucket does not exist" in str(error):
            return NotInStorage(f"{doing}: the bucket does not exist; create it or correct the bucket name")
        return NotInStorage(f"{doing}: not found")
    if any(sign in str(error) for sign in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")):
        return StorageDenied(
            f"{doing}: the access key, secret key or session token is wrong or expired; correct the aws connection ({text})"
        )
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or any(
        sign in str(error) for sign in ("AccessDenied", "occurred (403)")
    ):
        if not _CODE.search(str(error)):  # the answer to a HEAD request has no body that says why
            return StorageDenied(
                f"{doing}: access denied; the access key or secret key is wrong, or the key lacks this permission on the bucket; "
                "correct the aws connection"
            )
        return StorageDenied(f"{doing}: access denied; the key lacks this permission on the bucket ({text})")
    # Amazon answers "conflict" to the slower one of two conditional writes that overlap.
    changed = type(error).__name__ in ("AlreadyExistsError", "PreconditionError")
    if changed or any(sign in str(error) for sign in ("PreconditionFailed", "ConditionalRequestConflict")):
        return ObjectChanged(f"{doing}: it exists already, or is no longer the one that was read")
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return StorageDenied(f"{doing}: the aws connection has no usable credentials ({text})")
    return StorageError(f"{doing}: {text}")


def throttled(error: BaseException) -> bool:
    """Return whether the store asked for fewer requests. Only status and code are looked at: ids in a key may contain ``503``."""
    return _BUSY.search(str(error)) is not None


def transient(error: BaseException) -> bool:
    """Return whether the same request may succeed when it is repeated."""
    if _REFUSED.search(str(error)):
        return False
    return throttled(error) or _FAILED.search(str(error)) is not None or type(error).__name__ in (
        "GenericError",
        "JoinError",
        "ConnectionClosedError",
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
    return without_userinfo(" ".join(text.split()))[:300] or type(error).__name__


def unconditional(error: BaseException) -> bool:
    """Return whether the store does not know conditional writes."""
    return type(error).__name__ == "NotSupportedError" or _UNCONDITIONAL.search(str(error)) is not None
