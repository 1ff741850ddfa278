"""One request to Milvus over REST (``/v2/vectordb``, 2.4 and later): what its answers and errors mean, and how often to try.

The handlers are in ``internal/distributed/proxy/httpserver/handler_v2.go`` of ``milvus-io/milvus``. Errors mostly come with HTTP status
200 and a ``code`` other than 0.
"""

from __future__ import annotations

import json
import ssl
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import AuthError, ConfigError, ServerError, ServerUnreachable, UnsupportedServer
from .patience import Backoff, Patience
from .rpc import BUDGET, CONNECT_SECONDS, is_passing
from .settings import MilvusAddress, read_pem

if TYPE_CHECKING:
    import httpx

#: Seconds that Milvus may work on one request; creating a job lists every prefix that it names.
REQUEST_SECONDS = 300.0
#: Seconds for a request that only asks.
ASK_SECONDS = 60.0
#: Connections that one client has open at most; all of them are kept.
CONNECTIONS = 32

CREATE, LIST = "jobs/import/create", "jobs/import/list"
#: Asking for one job: the name of 2.4.13 and later first, then the one that all have.
DESCRIBE = ("jobs/import/describe", "jobs/import/get_progress")
SEGMENTS = "segments/describe"


class MilvusRest:
    """The REST interface of one Milvus. The first request connects.

    :param patience: what ends waiting early
    """

    def __init__(self, address: MilvusAddress, patience: Patience) -> None:
        self.address, self.patience = address, patience
        #: Whether it has ever answered; one that has is waited for when it is away.
        self.answered = False
        self._describe: tuple[str, ...] = DESCRIBE

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        return httpx.Client(**client_options(self.address))

    def close(self) -> None:
        """Close all connections."""
        if "_client" in self.__dict__:
            self._client.close()
            del self._client

    def call(
        self, path: str, body: dict[str, Any], doing: str, database: str, *, once: bool = False, seconds: float = ASK_SECONDS
    ) -> dict[str, Any]:
        """Send one request and return the ``data`` of its answer.

        :param once: do not repeat a request that Milvus may be working on
        :param seconds: how long Milvus may work on it
        :raises ServerUnreachable, AuthError, UnsupportedServer, ServerError: as for gRPC; UnsupportedServer where there is no such path
        """
        backoff = Backoff(BUDGET if self.answered else CONNECT_SECONDS, self.patience)
        while True:
            try:
                data = self._send(path, body, doing, database, seconds)
                self.answered = True
                return data
            except ServerError as error:
                problem = error
            unanswered = isinstance(problem, ServerUnreachable) and not problem.code and not self.answered
            if not problem.passing or unanswered or (once and problem.unclear) or not backoff.again(str(problem)):
                raise problem

    def describe_job(self, job_id: int, database: str) -> dict[str, Any]:
        """Return what Milvus says about one import job."""
        while True:
            try:
                return self.call(self._describe[0], {"jobId": str(job_id)}, f"ask for import job {job_id}", database)
            except UnsupportedServer:
                if len(self._describe) == 1:
                    raise
                self._describe = self._describe[1:]

    def _send(self, path: str, body: dict[str, Any], doing: str, database: str, seconds: float) -> dict[str, Any]:
        import httpx

        client, asked = self._client, Future[httpx.Response]()

        def send() -> None:
            try:
                asked.set_result(client.post(path_of(path), json=body, **request_options(self.address, database, seconds)))
            except Exception as error:  # noqa: BLE001 (raised again below)
                asked.set_exception(error)

        # A daemon, for a process that was killed must not stay until Milvus answers.
        threading.Thread(target=send, name="milvus-rest", daemon=True).start()
        while True:
            try:
                response = asked.result(timeout=0.5)
                break
            except FutureTimeoutError:
                self.patience.check(f"waiting for an answer: {doing}")
            except httpx.HTTPError as error:
                raise explain_http_error(error, doing, self.address) from None
        return data_of(response.status_code, response.content, doing, self.address)


def base_url(address: MilvusAddress) -> str:
    """Return the URL that all paths follow; without a ``rest_endpoint`` REST shares the port of gRPC.

    :raises ConfigError: ``rest_endpoint`` is no URL
    """
    if not address.rest_endpoint:
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{'https' if address.secure else 'http'}://{host}:{address.port}"
    given = address.rest_endpoint if "://" in address.rest_endpoint else f"http{'s' * address.secure}://{address.rest_endpoint}"
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"rest_endpoint of {address.label or address} is not a URL like http://host:19530, without user and password")
    return given.rstrip("/")


def client_options(address: MilvusAddress) -> dict[str, Any]:
    """Return what httpx's clients take: where, TLS, and no proxies from the environment, which gRPC does not use either."""
    import httpx

    url, limits = base_url(address), httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    # httpx reads all CAs for a context of its own unless it is given one, without TLS too.
    return {"base_url": url, "trust_env": False, "limits": limits, "verify": tls(address) if url.startswith("https:") else False}


def tls(address: MilvusAddress) -> ssl.SSLContext:
    """Return how to check Milvus's certificate, and the one to show; raises ConfigError for files that cannot be used."""
    for path, purpose in ((address.ca_cert, "ca_cert"), (address.client_key, "client_key"), (address.client_cert, "client_cert")):
        if path:
            read_pem(path, f"{purpose} of {address}")
    try:
        context = ssl.create_default_context(cafile=address.ca_cert or None)
        if address.client_cert:
            context.load_cert_chain(address.client_cert, address.client_key or None)
    except ssl.SSLError as error:
        raise ConfigError(f"ca_cert, client_cert or client_key of {address} is no usable PEM file: {error.reason}") from None
    return context


def path_of(path: str) -> str:
    """Return the path of a request."""
    return f"/v2/vectordb/{path}"


def request_options(address: MilvusAddress, database: str, seconds: float) -> dict[str, Any]:
    """Return what httpx takes with a request: who asks, for which database, and how long Milvus may work on it (30 s unless told)."""
    import httpx

    secret = address.token or (f"{address.user}:{address.password}" if address.user else "")
    return {
        "headers": {
            "Request-Timeout": str(round(seconds)),
            "DB-Name": database,
            # As bytes, for httpx takes ASCII only.
            **({"Authorization": f"Bearer {secret}".encode()} if secret else {}),
        },
        "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        # The name that the certificate is for, where it is not that of the host.
        "extensions": {"sni_hostname": address.server_name} if address.server_name else {},
    }


def data_of(status: int, content: bytes, doing: str, address: MilvusAddress) -> dict[str, Any]:
    """Return the ``data`` of an answer; raises what :meth:`MilvusRest.call` raises."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    code = answer.get("code") if isinstance(answer, dict) else None
    message = str(answer.get("message", "")).strip() if isinstance(answer, dict) else ""
    if status in (401, 403):
        what = message or f"HTTP status {status}"
        raise AuthError(f"Milvus at {address} refuses to {doing}: {what}; check login, password or token of the connection", status)
    if status == 404 and not isinstance(code, int):
        raise UnsupportedServer(f"Milvus at {address} does not know how to {doing}: there is no such path in its REST interface")
    if status in (408, 429, 500, 502, 503, 504):
        problem = ServerUnreachable(f"Milvus at {address} cannot {doing} now: {message or f'HTTP status {status}'}", status)
        problem.passing, problem.unclear = True, status != 429
        raise problem
    if status != 200 or not isinstance(answer, dict) or not isinstance(code, int):
        raise UnsupportedServer(f"what answers at {base_url(address)} is not Milvus's REST interface (HTTP status {status})")
    # Until about 2.4.5 success was code 200, which is also that of a missing partition; but an error has a message (milvus #33099).
    if code and not (code == 200 and "message" not in answer):
        kind = AuthError if "privilege" in message.lower() or "permission deny" in message.lower() else ServerError
        error = kind(f"Milvus at {address} cannot {doing}: {message or 'no reason'} (code {code})", code)
        error.passing = is_passing(message)
        raise error
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def explain_http_error(error: Exception, doing: str, address: MilvusAddress) -> ServerError:
    """Return our error for one of httpx's."""
    import httpx

    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return UnsupportedServer(f"what answers at {base_url(address)} does not speak HTTP/1.1; set rest_endpoint of the connection")
    what = str(error) or type(error).__name__
    problem = ServerUnreachable(f"Milvus at {address} cannot {doing} now: no answer from {base_url(address)}: {what}")
    problem.passing, problem.unclear = True, not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    return problem
