"""One request to Milvus over gRPC: the channel, what its answers and errors mean, and how often to try."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from .errors import AuthError, MilvusBackupError, ServerError, ServerUnreachable, UnsupportedServer
from .patience import Backoff, Patience
from .settings import MilvusAddress, read_pem

#: Leaves time for the rest of what must fail within ten seconds.
CONNECT_SECONDS = 8.0
REQUEST_SECONDS = 60.0
#: Seconds for which a request is repeated when a Milvus that has answered before is away, restarts or is too busy.
BUDGET = 120.0

#: What a Milvus says that restarts, or that limits the rate of requests (``pkg/util/merr``, ``internal/proxy/rate_limit_interceptor.go``).
_PASSING = re.compile(r"rate limit|ratelimiter|not ready|service unavailable|not healthy|node offline|queue max size", re.IGNORECASE)


class MilvusRpc:
    """A channel to one Milvus. It is opened by the first request, so instances are free to make and safe before a fork.

    A request that finds Milvus away or too busy is repeated for two minutes; a Milvus that never answered is reported at once.

    :param patience: what ends the repetitions early
    """

    def __init__(self, address: MilvusAddress, patience: Patience | None = None) -> None:
        self.address = address
        self.patience = patience or Patience()
        #: Whether Milvus has ever answered; set by whoever knows that it has.
        self.answered = False
        self._asked: set[Any] = set()

    @cached_property
    def _channel(self) -> Any:
        import grpc

        channel, seconds = open_channel(self.address, grpc), self._seconds
        ready, until = grpc.channel_ready_future(channel), time.monotonic() + seconds
        unreachable = f"Milvus at {self.address} did not answer within {seconds:.0f} s; check host, port and TLS"
        try:
            while True:
                try:
                    ready.result(timeout=min(0.5, seconds))
                    return channel
                except grpc.FutureTimeoutError:
                    self.patience.check(unreachable)
                    if time.monotonic() >= until:
                        raise ServerUnreachable(unreachable) from None
        except MilvusBackupError:
            channel.close()
            raise

    @property
    def _seconds(self) -> float:
        return BUDGET if self.answered else CONNECT_SECONDS

    @cached_property
    def _stub(self) -> Any:
        from pymilvus.grpc_gen import milvus_pb2_grpc

        return milvus_pb2_grpc.MilvusServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the channel; a later request opens a new one."""
        if "_channel" in self.__dict__:
            for asked in list(self._asked):  # see _answer_of
                with contextlib.suppress(Exception):
                    asked.result(timeout=2)
            self._channel.close()
            del self._channel
            self.__dict__.pop("_stub", None)

    def _call(
        self,
        rpc: str,
        request: Any,
        doing: str,
        database: str | None = None,
        *,
        once: bool = False,
        cancellable: bool = True,
        done: Callable[[], bool] | None = None,
    ) -> Any:
        """Send one request and return its answer.

        :param once: do not repeat a request that Milvus may be working on
        :param cancellable: see :meth:`_answer_of`
        :param done: asked after a repetition failed: whether an earlier attempt, whose answer was lost, did it; None is then returned
        """
        import grpc

        metadata = request_metadata(self.address, database)
        backoff = Backoff(self._seconds, self.patience)
        while True:
            try:
                method = getattr(self._stub, rpc)
                if cancellable:
                    answer = method(request, timeout=REQUEST_SECONDS, metadata=metadata)
                else:
                    answer = self._answer_of(method.future(request, metadata=metadata), doing)
                self.answered = True
                check_status(answer, doing, self.address)
                return answer
            except grpc.RpcError as error:
                problem = explain_rpc_error(error, doing, self.address)
            except ServerError as error:
                problem = error
            if backoff.repeats and done and done():
                return None
            if not problem.passing or (once and problem.unclear) or not backoff.again(str(problem)):
                raise problem from None

    def _answer_of(self, asked: Any, doing: str) -> Any:
        """Wait for the answer without ever cancelling the request.

        Milvus 2.3 crashes as a whole when a client gives up on GetImportState or ListImportTasks: ``internal/proxy/impl.go`` writes the
        error into an answer that is nil. So these requests get no deadline, and :meth:`close` waits for them.
        """
        import grpc

        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        for _ in range(round(REQUEST_SECONDS / 0.5)):
            try:
                return asked.result(timeout=0.5)
            except grpc.FutureTimeoutError:
                self.patience.check(f"waiting for an answer: {doing}")
        raise ServerUnreachable(f"Milvus at {self.address} did not {doing} within {REQUEST_SECONDS:.0f} s")


def open_channel(address: MilvusAddress, grpc: Any) -> Any:
    """Return a channel of ``grpc`` (the module itself or ``grpc.aio``); nothing is sent yet."""
    from grpc import ssl_channel_credentials

    target = f"{address.host}:{address.port}"
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.enable_http_proxy", 0),
    ]
    if not address.secure:
        return grpc.insecure_channel(target, options=options)
    if address.server_name:
        options.append(("grpc.ssl_target_name_override", address.server_name))
    ca, key, certificate = (
        read_pem(path, f"{purpose} of {address}") if path else None
        for path, purpose in ((address.ca_cert, "ca_cert"), (address.client_key, "client_key"), (address.client_cert, "client_cert"))
    )
    return grpc.secure_channel(target, ssl_channel_credentials(ca, key, certificate), options=options)


def request_metadata(address: MilvusAddress, database: str | None) -> list[tuple[str, str]]:
    """Return the headers of one request: who asks, and for which database."""
    secret = address.token or (f"{address.user}:{address.password}" if address.user else "")
    metadata = [("dbname", database)] if database else []
    if secret:
        metadata.append(("authorization", base64.b64encode(secret.encode()).decode()))
    return metadata


def check_status(answer: Any, doing: str, address: MilvusAddress) -> None:
    """Raise ServerError when the status inside an answer says so."""
    status = answer if hasattr(answer, "error_code") else answer.status
    code = status.code or status.error_code
    if code:
        kind = AuthError if "privilege" in status.reason.lower() or "permission deny" in status.reason.lower() else ServerError
        problem = kind(f"Milvus at {address} cannot {doing}: {status.reason.strip()} (code {code})", code)
        problem.passing = is_passing(status.reason)
        raise problem


def is_passing(reason: str) -> bool:
    """Return whether what Milvus gives as its reason passes by itself."""
    return _PASSING.search(reason) is not None


def explain_rpc_error(error: Any, doing: str, address: MilvusAddress) -> ServerError:
    """Return our error for one of gRPC's."""
    code, details = error.code().name, (error.details() or "").strip()
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"):
        problem = ServerUnreachable(f"Milvus at {address} cannot {doing} now: {details or code}")
        problem.passing, problem.unclear = True, code != "RESOURCE_EXHAUSTED"
        return problem
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return AuthError(f"Milvus at {address} refuses to {doing}: {details or code}; check login, password or token of the connection")
    if code == "UNIMPLEMENTED":
        return UnsupportedServer(f"Milvus at {address} does not know how to {doing}")
    return ServerError(f"Milvus at {address} cannot {doing}: {details or code}")


def messages() -> Any:
    """Return pymilvus's generated messages; imported late, for it takes a second."""
    from pymilvus.grpc_gen import milvus_pb2

    return milvus_pb2


def common() -> Any:
    """Return the generated messages that several services share."""
    from pymilvus.grpc_gen import common_pb2

    return common_pb2
