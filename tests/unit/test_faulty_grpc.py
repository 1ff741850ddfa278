"""Each fault of the gRPC proxy does what it says, in front of a Milvus that only counts."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from tests.breaking.faults import Fault, Random, Script
from tests.breaking.faulty_grpc import FaultyGrpc, faulty_grpc

SERVICE = "/milvus.proto.milvus.MilvusService"


class Upstream(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every request with itself, and keeps how each was made and how it ended."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.asked_at = 0.0
        self.metadata: dict[str, str | bytes] = {}
        self.seconds_left: float | None = None
        self.cancelled: list[str] = []
        self.port = 0
        self.release = threading.Event()
        self.release.set()

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]

        def handle(request: bytes, context: Any) -> bytes:
            self.requests[name] += 1
            self.asked_at = time.monotonic()
            self.metadata, self.seconds_left = dict(context.invocation_metadata()), context.time_remaining()
            self.release.wait(60)
            if not context.is_active():
                self.cancelled.append(name)
            context.set_trailing_metadata([("cost", "7")])
            if name == "Refused":
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
            return request

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    service = Upstream()
    with ThreadPoolExecutor(8) as threads:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(threads, handlers=[service], options=options)
        service.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield service
        service.release.set()
        server.stop(None).wait()


@contextmanager
def channel_to(proxy: FaultyGrpc) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options=options) as channel:
        yield channel


def ask(channel: Any, name: str, request: bytes = b"hello", **options: Any) -> bytes:
    return bytes(channel.unary_unary(f"{SERVICE}/{name}")(request, **options))


def refusal(channel: Any, name: str, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, name, **options)
    return caught.value.code(), caught.value.details()


def test_without_a_fault_requests_answers_metadata_and_errors_pass_unchanged(upstream: Upstream) -> None:
    large = bytes(6 << 20)  # more than gRPC allows unless it is told otherwise
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy, channel_to(proxy) as channel:
        answer, call = channel.unary_unary(f"{SERVICE}/Insert").with_call(large, metadata=[("dbname", "d"), ("raw-bin", b"\0\1")])
        assert answer == large
        assert ("cost", "7") in call.trailing_metadata()
        assert (upstream.metadata["dbname"], upstream.metadata["raw-bin"]) == ("d", b"\0\1")
        assert refusal(channel, "Refused") == (grpc.StatusCode.PERMISSION_DENIED, "not you")
        assert proxy.requests == {"Insert": 1, "Refused": 1}


@pytest.mark.parametrize(
    ("fault", "code", "forwarded"),
    [
        (Fault.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, 0),
        (Fault.EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED, 0),
        (Fault.LOST, grpc.StatusCode.UNAVAILABLE, 1),
    ],
)
def test_a_refused_request_is_never_forwarded_and_a_lost_one_always(
    upstream: Upstream, fault: Fault, code: grpc.StatusCode, forwarded: int
) -> None:
    schedule = Script({("Flush", 2): fault})
    with faulty_grpc("127.0.0.1", upstream.port, schedule) as proxy, channel_to(proxy) as channel:
        ask(channel, "Flush")
        assert refusal(channel, "Flush")[0] == code
        assert upstream.requests["Flush"] == 1 + forwarded
        assert ask(channel, "Flush") == b"hello"
    assert schedule.injected == [("Flush", 2, fault)]


def test_slow_delays_the_answer_and_not_the_request(upstream: Upstream) -> None:
    with faulty_grpc("127.0.0.1", upstream.port, Script({("Flush", 1): Fault.SLOW})) as proxy, channel_to(proxy) as channel:
        proxy.slow_seconds = 0.2
        assert ask(channel, "Flush") == b"hello"
        assert time.monotonic() - upstream.asked_at >= 0.2


def test_a_rate_limit_is_answered_as_milvus_does(upstream: Upstream) -> None:
    schedule = Script({("*", number): Fault.RATE_LIMIT for number in (1, 2)})
    with faulty_grpc("127.0.0.1", upstream.port, schedule) as proxy, channel_to(proxy) as channel:
        inside = milvus_pb2.FlushResponse.FromString(ask(channel, "Flush")).status
        bare = common_pb2.Status.FromString(ask(channel, "CreateCollection"))
        assert ask(channel, "Flush") == b"hello"
    for status in (inside, bare):
        assert (status.code, status.error_code) == (8, common_pb2.RateLimit)
        assert "rate limit exceeded" in status.reason
    assert upstream.requests == {"Flush": 1}


def test_a_client_that_gives_up_or_goes_away_cancels_nothing(upstream: Upstream) -> None:
    upstream.release.clear()
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy:
        with channel_to(proxy) as channel:
            seconds = 0.1
            while not upstream.requests["GetImportState"]:  # so long as it takes this machine to send it
                assert refusal(channel, "GetImportState", timeout=seconds)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
                seconds *= 2
            asked = upstream.requests["GetImportState"]
            abandoned = channel.unary_unary(f"{SERVICE}/GetImportState").future(b"")
            wait_for(lambda: upstream.requests["GetImportState"] > asked)
            assert upstream.seconds_left is None or upstream.seconds_left > 1e6
            abandoned.cancel()
        time.sleep(0.1)  # for a cancellation to arrive
        # The end of the proxy waits for the answer that the upstream still owes.
        threading.Timer(0.1, upstream.release.set).start()
    assert upstream.cancelled == []


def test_while_it_is_down_pending_and_new_requests_fail_at_once_and_afterwards_all_is_well(upstream: Upstream) -> None:
    upstream.release.clear()
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy, channel_to(proxy) as channel:
        pending = channel.unary_unary(f"{SERVICE}/Flush").future(b"")
        wait_for(lambda: upstream.requests["Flush"] == 1)
        proxy.down = True
        assert pending.exception(60).code() == grpc.StatusCode.UNAVAILABLE
        assert refusal(channel, "Flush")[0] == grpc.StatusCode.UNAVAILABLE
        upstream.release.set()
        proxy.down = False
        assert ask(channel, "Flush") == b"hello"
    assert upstream.cancelled == []
    assert upstream.requests["Flush"] == 2


def test_the_hook_may_block_and_start_an_outage_at_an_exact_moment(upstream: Upstream) -> None:
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy, channel_to(proxy) as channel:

        def strike(operation: str) -> None:
            if (operation, proxy.requests[operation]) == ("Import", 2):
                time.sleep(0.05)
                proxy.down = True
                proxy.down = False  # the shortest outage costs the request all the same

        proxy.before = strike
        ask(channel, "Import")
        assert refusal(channel, "Import")[0] == grpc.StatusCode.UNAVAILABLE
    assert upstream.requests["Import"] == 1


def test_what_is_answered_instead_is_not_forwarded(upstream: Upstream) -> None:
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy, channel_to(proxy) as channel:
        proxy.instead = lambda operation, request: request + b"!" if operation == "Flush" else None
        assert ask(channel, "Flush") == b"hello!"
        assert ask(channel, "Import") == b"hello"
        assert proxy.requests == {"Flush": 1, "Import": 1}
    assert upstream.requests == {"Import": 1}


def test_what_the_hook_holds_back_is_forwarded_at_the_end_though_its_client_is_gone(upstream: Upstream) -> None:
    held, opened = threading.Event(), threading.Event()

    def before(_: str) -> None:
        held.set()
        opened.wait(60)

    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy:
        proxy.before = before
        with channel_to(proxy) as channel:
            _asked = channel.unary_unary(f"{SERVICE}/Import").future(b"hello")
            assert held.wait(60)
        threading.Timer(0.5, opened.set).start()
    assert upstream.requests == {"Import": 1}
    assert upstream.cancelled == []


def test_an_upstream_that_is_gone_is_unavailable_and_soon_found_again_when_it_is_back() -> None:
    def serve(port: int) -> Any:
        server = grpc.server(threads, handlers=[Upstream()])
        ports.append(server.add_insecure_port(f"127.0.0.1:{port}"))
        server.start()
        return server

    def answers() -> bool:
        try:
            return ask(channel, "Flush") == b"hello"
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 (until it is back)
            return False

    ports: list[int] = []
    # Holds the port without listening, so that nobody else gets it between the two servers, which share it with this socket.
    with ThreadPoolExecutor(2) as threads, socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        first = serve(held.getsockname()[1])
        with faulty_grpc("127.0.0.1", ports[0], Script({})) as proxy, channel_to(proxy) as channel:
            assert answers()
            first.stop(None).wait()
            assert not answers()
            second = serve(ports[0])
            wait_for(answers)
        second.stop(None).wait()
    assert ports[0] == ports[1]


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.RATE_LIMIT])
def test_a_fault_that_cannot_be_played_fails_the_test(upstream: Upstream, fault: Fault) -> None:
    schedule = Script({("GetReplicateInfo", 1): fault})  # its answer has no status
    with pytest.raises(ValueError, match=r"no fault of gRPC|has no status"):  # noqa: SIM117 (raised by the proxy's end)
        with faulty_grpc("127.0.0.1", upstream.port, schedule) as proxy, channel_to(proxy) as channel:
            assert refusal(channel, "GetReplicateInfo")[0] == grpc.StatusCode.INTERNAL


def test_its_end_leaves_no_thread_behind(upstream: Upstream) -> None:
    before = {*threading.enumerate()}
    with faulty_grpc("127.0.0.1", upstream.port, Script({})) as proxy, channel_to(proxy) as channel:
        ask(channel, "Flush")
        upstream_threads = {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")}
    wait_for(lambda: not {*threading.enumerate()} - before - upstream_threads)


def test_random_faults_depend_on_the_seed_alone_and_keep_to_their_lists_and_limit() -> None:
    def play(seed: int, operations: list[str]) -> Random:
        schedule = Random(seed, 0.5, {"copy": [Fault.LOST, Fault.ERROR], "Flush": [Fault.UNAVAILABLE]}, limit=8)
        numbers: Counter[str] = Counter()
        for operation in operations:
            numbers[operation] += 1
            schedule(operation, numbers[operation])
        return schedule

    first = play(7, ["copy", "Flush", "get"] * 4)
    assert first.injected == play(7, ["copy", "Flush", "get"] * 4).injected
    assert {*first.injected} == {*play(7, ["copy"] * 4 + ["Flush"] * 4).injected}
    assert first.injected != play(8, ["copy", "Flush", "get"] * 4).injected
    assert len(play(7, ["copy", "Flush", "get"] * 100).injected) == 8
    assert {(o, f) for o, _, f in play(7, ["copy", "Flush", "get"] * 100).injected} == {
        ("copy", Fault.LOST),
        ("copy", Fault.ERROR),
        ("Flush", Fault.UNAVAILABLE),
    }


def test_a_schedule_says_what_it_injected() -> None:
    script, drawn = Script({("*", 2): Fault.LOST}), Random(7, 1.0, {"*": [Fault.SLOW]}, limit=1)
    for schedule in (script, drawn):
        for operation in ("get", "put"):
            schedule(operation, 1)
    assert str(script) == "Script({('*', 2): Fault.LOST}) injected put 1: LOST"
    assert str(drawn) == "Random(seed=7, rate=1.0, faults={'*': ['SLOW']}, limit=1) injected get 1: SLOW into 2 requests"


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
