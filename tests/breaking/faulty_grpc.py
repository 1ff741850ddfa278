"""A proxy in front of a Milvus that loses, refuses and delays what a schedule tells it to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pool, message_factory
from pymilvus.grpc_gen import common_pb2, milvus_pb2  # noqa: F401 (it also registers Milvus's services)

from demo.servers import LOOPBACK
from tests.breaking.faults import Fault, Schedule

HANDLERS = 32
# How long the end waits for requests that the real server still works on; only then are they cancelled.
LAST_ANSWERS_SECONDS = 300.0
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
# gRPC would wait up to two minutes before it tries a restarted server again.
CHANNEL_OPTIONS = [*OPTIONS, *((f"grpc.{which}_reconnect_backoff_ms", 200) for which in ("initial", "min", "max"))]
# Servers that listen on the same port share it by default: a second proxy would get some of the first one's requests.
SERVER_OPTIONS = [*OPTIONS, ("grpc.so_reuseport", 0)]
RATE_LIMIT_CODE = 8
RATE_LIMIT_REASON = "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded"
STATUS = common_pb2.Status.DESCRIPTOR.full_name


class Answer(NamedTuple):
    """What the client gets: a message, or a code other than OK with its details."""

    message: bytes = b""
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: Any = ()


OUTAGE = Answer(code=grpc.StatusCode.UNAVAILABLE, details="failed to connect to all addresses (injected outage)")
REFUSALS = {
    Fault.UNAVAILABLE: Answer(code=grpc.StatusCode.UNAVAILABLE, details="connection refused (injected)"),
    Fault.EXHAUSTED: Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="too many requests (injected)"),
}
LOST = Answer(code=grpc.StatusCode.UNAVAILABLE, details="connection reset")


class FaultyGrpc:
    """The running proxy; :func:`faulty_grpc` makes it."""

    def __init__(self, host: str, port: int, schedule: Schedule) -> None:
        self._schedule = schedule
        #: Where clients find it, on loopback.
        self.port = 0
        #: How long SLOW delays an answer.
        self.slow_seconds = 0.3
        #: Called with the operation before a request is forwarded; it may block, and what it raises fails the test.
        self.before: Callable[[str], None] | None = None
        #: Called with the operation and the request before that; what it returns is answered, and nothing forwarded, unless it is None.
        self.instead: Callable[[str, bytes], bytes | None] | None = None
        #: How many requests of each operation came, whatever became of them.
        self.requests: Counter[str] = Counter()
        #: What went wrong in the schedule, the hook or the proxy itself; the first is raised when the proxy ends.
        self.errors: list[Exception] = []
        self._down = False
        # A request that is pending when an outage begins is part of it, even if the outage is over before its thread looks.
        self._outages = 0
        #: How many requests are on their way to the real server, or held back by the hook.
        self._due = 0
        self._changed = threading.Condition()
        # A call of grpc's that nobody holds any more is cancelled, and that a GetImportState is cancelled kills Milvus 2.3.5.
        self._calls: set[Any] = set()
        self._channel = grpc.insecure_channel(f"{host}:{port}", options=CHANNEL_OPTIONS)
        self._threads = ThreadPoolExecutor(HANDLERS, thread_name_prefix="faulty-grpc")
        self._server = grpc.server(self._threads, handlers=[_Everything(self._handle)], options=SERVER_OPTIONS)

    @property
    def down(self) -> bool:
        """Whether an outage is played: every new and pending request is answered UNAVAILABLE, and nothing more is forwarded."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        with self._changed:
            self._down = value
            self._outages += value
            self._changed.notify_all()

    def start(self) -> None:
        """Listen on a free port."""
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        self._server.start()

    def stop(self) -> None:
        """Close everything, after what came is forwarded and answered: nothing is lost or cancelled because its client is gone."""
        self._server.stop(None).wait()
        with self._changed:
            self._changed.wait_for(lambda: not (self._due or self._calls), LAST_ANSWERS_SECONDS)
        self.down = True
        self._channel.close()
        self._threads.shutdown()

    def _handle(self, method: str, request: bytes, context: Any) -> bytes:
        try:
            answer = self._answer(method, request, context)
        except Exception as error:  # noqa: BLE001 (raised again in the test's thread)
            self.errors.append(error)
            answer = Answer(code=grpc.StatusCode.INTERNAL, details=f"the proxy failed: {error!r}")
        context.set_trailing_metadata(answer.trailers)
        if answer.code is not grpc.StatusCode.OK:
            context.abort(answer.code, answer.details)
        return answer.message

    def _answer(self, method: str, request: bytes, context: Any) -> Answer:
        operation = method.rpartition("/")[2]
        with self._changed:
            self.requests[operation] += 1
            number, outages = self.requests[operation], self._outages
            if self._down:
                return OUTAGE
        fault = self._schedule(operation, number)
        if fault in REFUSALS:
            return REFUSALS[fault]
        if fault is Fault.RATE_LIMIT:
            return Answer(rate_limited(method))
        if fault not in (None, Fault.LOST, Fault.SLOW):
            raise ValueError(f"{fault} is no fault of gRPC")

        if self.instead and (said := self.instead(operation, request)) is not None:
            return Answer(said)
        with self._changed:
            self._due += 1
        try:
            if self.before:
                self.before(operation)
            answer = self._forward(method, request, context, outages)
        finally:
            with self._changed:
                self._due -= 1
                self._changed.notify_all()
        if fault is Fault.LOST:
            return LOST
        if fault is Fault.SLOW:
            with self._changed:
                if self._changed.wait_for(lambda: self._outages != outages, self.slow_seconds):
                    return OUTAGE
        return answer

    def _forward(self, method: str, request: bytes, context: Any, outages: int) -> Answer:
        """Return the real server's answer, or an outage as soon as there are more than ``outages``; the request itself goes on to its end.

        It has no deadline either: the client's own ends only what the client waits for.
        """
        with self._changed:
            if self._outages != outages:
                return OUTAGE
            call = self._channel.unary_unary(method).future(request, metadata=_forwardable(context.invocation_metadata()))
            self._calls.add(call)
        call.add_done_callback(self._ended)
        with self._changed:
            self._changed.wait_for(lambda: call.done() or self._outages != outages)
        if not call.done():
            return OUTAGE
        if call.code() is grpc.StatusCode.OK:
            return Answer(call.result(), trailers=_forwardable(call.trailing_metadata()))
        return Answer(code=call.code(), details=call.details(), trailers=_forwardable(call.trailing_metadata()))

    def _ended(self, call: Any) -> None:
        with self._changed:
            self._calls.discard(call)
            self._changed.notify_all()


class _Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands every method to one function, as bytes."""

    def __init__(self, handle: Callable[[str, bytes, Any], bytes]) -> None:
        self._handle = handle

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._handle(method, request, context))


@contextmanager
def faulty_grpc(host: str, port: int, schedule: Schedule) -> Iterator[FaultyGrpc]:
    """Run a proxy in front of a Milvus."""
    proxy = FaultyGrpc(host, port, schedule)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
    if proxy.errors:
        raise proxy.errors[0]


def rate_limited(method: str) -> bytes:
    """Return what Milvus answers to ``/package.Service/Method`` when it gets too many such requests."""
    service, _, name = method.strip("/").partition("/")
    answer_type = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].output_type
    answer = message_factory.GetMessageClass(answer_type)()
    status: Any = answer
    if answer_type.full_name != STATUS:
        if "status" not in answer_type.fields_by_name:
            raise ValueError(f"an answer to {name} has no status that could tell of a rate limit")
        status = answer.status
    status.error_code, status.code, status.reason = common_pb2.RateLimit, RATE_LIMIT_CODE, RATE_LIMIT_REASON
    return bytes(answer.SerializeToString())


def _forwardable(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return metadata without what gRPC itself adds on each connection."""
    return [(key, value) for key, value in metadata or () if key != "user-agent" and not key.startswith(("grpc-", ":"))]
