"""How one RPC is answered: recorded, let in, and with a refusal as the status of its own response type."""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2

from .accounts import Accounts
from .model import Model
from .profiles import Profile
from .recording import Recorder
from .refusals import Refusal, rate_limited, unexpected
from .state import DEFAULT_DATABASE, Name

Handler = Callable[[Any, Any, str], Any]
SERVICE = "milvus.proto.milvus.MilvusService"


class Base:
    """What all RPCs share.

    :param flush_interval: seconds between two flushes of one collection, None = what the version's default configuration says
    """

    def __init__(self, model: Model, recorder: Recorder, accounts: Accounts, flush_interval: float | None = None) -> None:
        self.model, self.recorder, self.accounts = model, recorder, accounts
        self.flush_interval = model.profile.flush_interval if flush_interval is None else flush_interval
        self._last_flush: dict[int, float] = {}
        self._calling = threading.local()

    def caller_name(self) -> str:
        """Return who asks; Milvus wants to know for some requests even where nobody must log in (``internal/proxy/util.go``)."""
        secret = self._calling.metadata.get("authorization")
        if secret is None:
            raise unexpected("fail to get authorization from the md, authorization:[token]")
        return base64.b64decode(secret).decode().partition(":")[0]

    def limit_flush(self, collection_id: int) -> None:
        """Refuse a flush that comes too soon after another (``internal/proxy/rate_limit_interceptor.go``)."""
        with self.model.lock:
            now = self.model.monotonic()
            if self.flush_interval and now - self._last_flush.get(collection_id, -1e9) < self.flush_interval:
                raise rate_limited(1 / self.flush_interval)
            self._last_flush[collection_id] = now


def rpc(response: Any, when: Callable[[Profile], bool] = lambda _: True) -> Callable[[Handler], Any]:
    """Make a method ``(self, request, database) -> response or None`` the answer to an RPC.

    :param when: which versions know the RPC; the others answer as grpc-go does to an unknown method
    """

    def decorate(handler: Handler) -> Any:
        name = handler.__name__

        @functools.wraps(handler)
        def answer(self: Base, request: Any, context: Any) -> Any:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            database = getattr(request, "db_name", "") or getattr(request, "dbName", "") or metadata.get("dbname", "") or DEFAULT_DATABASE
            try:
                self.recorder.note(name, request, metadata)
                if not self.accounts.admits_grpc(metadata.get("authorization")):
                    wrong = "auth check failure, please check username and password are correct"
                    context.abort(
                        grpc.StatusCode.UNAUTHENTICATED, wrong if "authorization" in metadata else "missing authorization in header"
                    )
                if denial := self.accounts.denial(name, metadata.get("authorization"), database):
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, denial)
                if not when(self.model.profile):
                    context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {name} for service {SERVICE}")
                self._calling.metadata = metadata
                with self.model.lock:
                    answered = handler(self, request, database)
                return response() if answered is None else answered
            except ConnectionResetError:
                return context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            except Refusal as refusal:
                return refused(response, refusal)

        return answer

    return decorate


def refused(response: Any, refusal: Refusal) -> Any:
    """Return a response that says a refusal."""
    answer = response()
    status = answer if isinstance(answer, common_pb2.Status) else answer.status
    status.code, status.error_code, status.reason, status.detail = refusal.code, refusal.old_code, refusal.reason, refusal.reason
    return answer


def named(request: Any, database: str) -> Name:
    """Return which collection a request is about."""
    return database, request.collection_name


def pairs(items: Iterable[Any]) -> dict[str, str]:
    """Return key-value pairs as a dict."""
    return {pair.key: pair.value for pair in items}
