"""What a Milvus says when it refuses: code and text of ``pkg/util/merr/errors.go``, and the older enum code beside it."""

from __future__ import annotations

UNEXPECTED = 1
#: `commonpb.ErrorCode` that `merr.oldCode` puts beside a new code; everything else is UnexpectedError.
OLD_CODES = {8: 49, 100: 4, 700: 25}


class Refusal(Exception):
    """A request that Milvus answers with a status other than success."""

    def __init__(self, code: int, reason: str, old_code: int | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason
        self.old_code = OLD_CODES.get(code, UNEXPECTED) if old_code is None else old_code


def unexpected(text: str) -> Refusal:
    """An error without a code of its own."""
    return Refusal(65535, text)


def invalid(text: str) -> Refusal:
    """`merr.WrapErrParameterInvalidMsg`."""
    return Refusal(1100, f"{text}: invalid parameter")


def import_failed(text: str, code: int = 2100) -> Refusal:
    """`merr.WrapErrImportFailed`; 2101 is `WrapErrImportSysFailed`, which late 3.0 builds use for what is not the caller's fault."""
    return Refusal(code, f"{text}: importing data failed" + (" on server side" if code == 2101 else ""))


def unimplemented(rpc: str) -> Refusal:
    """`merr.WrapErrServiceUnimplemented`: the RPC is there, what it does is not (``internal/datacoord/services.go`` of 3.0.0)."""
    return Refusal(10, f"{rpc} is not implemented: service unimplemented")


def rate_limited(rate: float) -> Refusal:
    """`internal/proxy/rate_limit_interceptor.go`."""
    return Refusal(8, f"request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded[rate={rate:g}]")


def collection_not_found(database: str, name: object) -> Refusal:
    """`merr.WrapErrCollectionNotFoundWithDB`."""
    return Refusal(100, f"collection not found[database={database}][collection={name}]")


def partition_not_found(name: str) -> Refusal:
    """`merr.WrapErrPartitionNotFound`."""
    return Refusal(200, f"partition not found[partition={name}]")


def database_not_found(name: str) -> Refusal:
    """`merr.WrapErrDatabaseNotFound`."""
    return Refusal(800, f"database not found[database={name}]")


def index_not_found(collection: str) -> Refusal:
    """`merr.WrapErrIndexNotFoundForCollection`."""
    return Refusal(700, f"index not found[collection={collection}]")


def alias_not_found(database: str, name: str) -> Refusal:
    """`merr.WrapErrAliasNotFound`."""
    return Refusal(1600, f"alias not found[database={database}][alias={name}]")
