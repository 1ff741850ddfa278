"""Keep Milvus's garbage collection away from the files that a backup copies.

Milvus removes the files of compacted segments some time after the compaction; a backup that still wants to copy them has to plan again.
So garbage collection is paused meanwhile, by GET requests to the management port 9091 (``internal/proxy/management.go`` and
``internal/datacoord/garbage_collector.go`` of ``milvus-io/milvus``):

==============  ====================================================================================================================
before 2.3.4    404
2.3.4 to 2.6.7  ``pause?pause_seconds=`` answers ``{"msg": "OK"}`` and holds for the whole cluster; it only ever prolongs. ``resume``
                ends every pause, whoever asked for it. ``collection_id`` is ignored: the whole cluster would be paused
2.6.8 and later ``pause?pause_seconds=&collection_id=`` answers with a ``ticket`` too. Every pause counts by itself, so a renewal is a
                further one, with a ticket of its own. ``resume?ticket=`` ends just that one; without a ticket it fails (status 500)
==============  ====================================================================================================================

Milvus keeps pauses in memory, so a restart ends them. Where garbage collection is switched off, a pause succeeds and a resume fails.
Compactions are not paused.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import AuthError, ConfigError, ServerError, ServerUnreachable, UnsupportedServer
from .patience import Patience
from .report import Reporter, counted, duration
from .rest import tls
from .settings import MilvusAddress

if TYPE_CHECKING:
    from types import TracebackType

    import httpx
    from typing_extensions import Self

GC_AUTO, GC_REQUIRE, GC_OFF = "auto", "require", "off"
GC_MODES = (GC_AUTO, GC_REQUIRE, GC_OFF)

#: Seconds that a pause holds unless it is renewed; so long is garbage collection away at most after a run that was killed.
LEASE_SECONDS = 3600
#: Seconds until a failed renewal is tried again, and between the renewals of a pause that anybody's resume may end.
AGAIN_SECONDS = 60.0
#: Seconds for one request. The port is often not reachable at all, and who waits for it is a backup that could do without.
REQUEST_SECONDS = 3.0
MANAGEMENT_PORT = 9091

PAUSE = "/management/datacoord/garbage_collection/pause"
RESUME = "/management/datacoord/garbage_collection/resume"
#: Stands for all collections, where a collection's id would.
_CLUSTER = 0
_REMEDY = f"set management_endpoint of the Milvus connection to the URL at which Milvus's port {MANAGEMENT_PORT} answers"


def check_gc_pause(value: str) -> str:
    """Return how garbage collection is to be paused; raises ConfigError for what is none of ``auto``, ``require`` and ``off``."""
    if value not in GC_MODES:
        raise ConfigError(f"gc_pause {value!r} is not one of {', '.join(GC_MODES)}")
    return value


def management_url(address: MilvusAddress) -> str:
    """Return the URL of Milvus's management port: ``management_endpoint``, or port 9091 of the host over plain HTTP.

    :raises ConfigError: ``management_endpoint`` is no URL
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    given = address.management_endpoint.strip() or f"{host}:{MANAGEMENT_PORT}"
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and not (parts.username or parts.password or parts.query or parts.fragment) and not any(map(str.isspace, url))
    except ValueError:
        usable = False
    if not usable:
        value = "" if "@" in given else f" {given!r}"
        raise ConfigError(
            f"management_endpoint{value} of {address.label or address} is not a URL like http://host:{MANAGEMENT_PORT}, "
            "without user and password"
        )
    return url.rstrip("/")


def management_login(address: MilvusAddress) -> tuple[str, str] | None:
    """Return user and password for the management port, None where there are none, or where they would leave TLS for plain HTTP.

    :raises ConfigError: as :func:`management_url`
    """
    user, _, password = (address.token or f"{address.user}:{address.password}").partition(":")
    kept_secret = management_url(address).startswith("https:") or not address.secure
    return (user, password) if user and password and kept_secret else None


@dataclass(frozen=True, slots=True)
class _Pause:
    ticket: str
    #: When it runs out, by the clock of :class:`GcPause`.
    until: float


class GcPause:
    """A pause of Milvus's garbage collection that holds until :meth:`release`, at the latest until the end of the ``with`` block.

    It is renewed in a thread of its own: every half lease, and a renewal that fails again every minute. With ``auto`` nothing of all this
    ever raises; the first reason why garbage collection is not paused is one warning. With ``require`` :meth:`hold` raises, and
    :meth:`check` does once the pause has run out because no renewal got through. With ``off`` nothing is sent.

    On cluster-wide servers the resume at the end also ends the pauses of other tools. Nobody can ask whether there are any, and a pause
    cannot be shortened, so the choice is between that and an hour without garbage collection after every backup. In return a pause there
    is renewed every minute: what another run of this package, or any tool, ends by its resume is back a minute later. A pause that has run
    out is not resumed, for then it could only be somebody else's that ends.

    :param base_url: where the management port is; see :func:`management_url`
    :param per_collection: whether this Milvus pauses by collection and gives tickets; if it turns out not to, the whole cluster is paused
    :param mode: ``auto``, ``require`` or ``off``
    :param patience: what ends :meth:`hold` early; a release goes through all the same
    :param clock: seconds, of any origin
    :param renew_seconds: seconds between renewals
    :param request_seconds: how long Milvus may take to connect and to answer
    :param login: user and password, sent when Milvus asks for them (``common.security.adminAuthEnabled``)
    :param verify: how the certificate of an https URL is checked
    :raises ConfigError: there is no such mode
    """

    def __init__(
        self,
        base_url: str,
        *,
        per_collection: bool,
        mode: str,
        reporter: Reporter,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        renew_seconds: float = LEASE_SECONDS / 2,
        request_seconds: float = REQUEST_SECONDS,
        login: tuple[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.base_url, self.per_collection, self.mode = base_url, per_collection, check_gc_pause(mode)
        self.reporter, self.patience, self.clock = reporter, patience, clock
        self.renew_seconds, self.request_seconds = renew_seconds, request_seconds
        self._login, self._verify = login, verify
        self._pauses: dict[int, _Pause] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failure: ServerError | None = None
        self._warned = False

    @classmethod
    def of(cls, address: MilvusAddress, per_collection: bool, mode: str, reporter: Reporter, patience: Patience) -> GcPause:
        """Return a pause for one Milvus; nothing is sent yet.

        :raises ConfigError: ``management_endpoint`` is no URL, or a certificate cannot be read
        """
        url = management_url(address)
        verify = tls(address) if url.startswith("https:") else True
        login = management_login(address)
        return cls(url, per_collection=per_collection, mode=mode, reporter=reporter, patience=patience, login=login, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def hold(self, collection_ids: Sequence[int]) -> None:
        """Pause garbage collection of these collections; those that are paused already stay so.

        :raises ServerUnreachable, AuthError, UnsupportedServer, ServerError: with ``require``, when it cannot be paused
        :raises Cancelled, WaitTimeout: the run is over
        """
        if self.mode == GC_OFF:
            return
        paused = 0
        try:
            for collection_id in dict.fromkeys(collection_ids):
                self.patience.check("Milvus's garbage collection was being paused")
                with self._lock:
                    key = collection_id if self.per_collection else _CLUSTER
                    if self._runs_out(key) <= self.clock():
                        self._pause(key)
                        paused += 1
        except ServerError as error:
            if self.mode == GC_REQUIRE:
                raise
            self._warn(error)
        finally:
            self._start_renewing()
        if paused:
            whole = "for the whole cluster" if _CLUSTER in self._pauses else f"for {counted(paused, 'collection')}"
            self.reporter.line(f"garbage collection of Milvus is paused {whole}")

    def check(self) -> None:
        """Raise, with ``require``, when the pause has run out because it could not be renewed."""
        if self.mode == GC_REQUIRE and self._lapsed():
            why = f": {self._failure}" if self._failure else ""
            raise (type(self._failure) if self._failure else ServerError)(f"the pause of Milvus's garbage collection has run out{why}")

    def release(self) -> None:
        """Let garbage collection go on and stop renewing; never raises. What cannot be resumed is one warning: it runs out by itself."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        with self._lock:
            pauses, self._pauses = self._pauses, {}
            try:
                self._resume_all([pause for pause in pauses.values() if pause.until > self.clock()])
            finally:
                if "_client" in self.__dict__:
                    self._client.close()
                    del self._client

    def _resume_all(self, pauses: Sequence[_Pause]) -> None:
        failed: list[tuple[_Pause, ServerError]] = []
        for pause in pauses:
            if failed and isinstance(failed[-1][1], ServerUnreachable):
                failed.append((pause, failed[-1][1]))
                continue
            try:
                self._get(RESUME, {"ticket": pause.ticket} if pause.ticket else {}, "resume garbage collection")
            except ServerError as error:
                if "garbage collection not enabled" not in str(error):
                    failed.append((pause, error))
        if failed:
            left = max(pause.until for pause, _ in failed) - self.clock()
            self.reporter.warn(
                f"garbage collection of Milvus could not be resumed: {failed[0][1]}; the pause runs out by itself after at most "
                f"{duration(max(0.0, left))}"
            )
        elif pauses:
            self.reporter.line("garbage collection of Milvus goes on")

    # ---- renewing ----------------------------------------------------------------------------------------------------------

    def _start_renewing(self) -> None:
        if self._pauses and not (self._thread and self._thread.is_alive()):
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._renewing, args=(self._stop,), name="gc-pause", daemon=True)
            self._thread.start()

    def _renewing(self, stop: threading.Event) -> None:
        while not stop.wait(self._until_next()):
            self._renew(stop)

    def _until_next(self) -> float:
        theirs_to_end = not all(pause.ticket for pause in list(self._pauses.values()))
        return min(self.renew_seconds, AGAIN_SECONDS) if self._failure or theirs_to_end else self.renew_seconds

    def _renew(self, stop: threading.Event) -> None:
        try:
            for key in self._needed():
                with self._lock:
                    if stop.is_set():
                        return
                    if key in self._needed():
                        self._pause(key)
        except ServerError as error:
            self._failure = error
            if self.mode == GC_AUTO and self._lapsed():
                self._warn(error)
        else:
            self._failure = None

    def _needed(self) -> list[int]:
        return [key for key in list(self._pauses) if self.per_collection or key == _CLUSTER]

    def _runs_out(self, key: int) -> float:
        pause = self._pauses.get(key)
        return pause.until if pause else float("-inf")

    def _lapsed(self) -> bool:
        return any(self._runs_out(key) <= self.clock() for key in self._needed())

    def _warn(self, error: ServerError) -> None:
        if not self._warned:
            self._warned = True
            self.reporter.warn(
                f"Milvus's garbage collection is not paused during this backup: {error}. Segments that are compacted away while they are "
                f"copied are planned again; a backup that takes hours may need several tries. gc_pause={GC_OFF!r} leaves out the attempt"
            )

    # ---- asking ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        return httpx.Client(base_url=self.base_url, timeout=self.request_seconds, trust_env=False, verify=self._verify)

    def _pause(self, key: int) -> None:
        """Pause, or renew; the pause that a renewal replaces ends, where it would else count as well."""
        query = {"pause_seconds": str(LEASE_SECONDS), **({"collection_id": str(key)} if key != _CLUSTER else {})}
        asked = self.clock()
        ticket = self._get(PAUSE, query, "pause garbage collection")
        replaced = self._pauses.get(key)
        if ticket or key == _CLUSTER:
            self._pauses[key] = _Pause(ticket, asked + LEASE_SECONDS)
        else:
            self._pauses[_CLUSTER], self.per_collection = _Pause("", asked + LEASE_SECONDS), False
            self._pauses.pop(key, None)
        if ticket and replaced and replaced.ticket:  # without tickets this would end the new pause as well
            with contextlib.suppress(ServerError):
                self._get(RESUME, {"ticket": replaced.ticket}, "resume garbage collection")

    def _get(self, path: str, query: dict[str, str], doing: str) -> str:
        """Send one request and return the ticket in its answer, empty where there is none."""
        import httpx

        try:
            response = self._client.get(path, params=query)
            if response.status_code == 401 and self._login:
                response = self._client.get(path, params=query, auth=self._login)
        except httpx.TimeoutException:
            problem = f"Milvus at {self.base_url} did not {doing} within {self.request_seconds:g} s"
            raise ServerUnreachable(f"{problem}; {_REMEDY}, or try again when it is less busy") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last one for a host name that cannot be one
            raise ServerUnreachable(f"Milvus at {self.base_url} does not answer ({error}); {_REMEDY}") from None
        return ticket_of(response.status_code, response.text, doing, self.base_url)


def ticket_of(status: int, text: str, doing: str, base_url: str) -> str:
    """Return the ticket in an answer of the management port, empty where there is none.

    :raises AuthError: only root may do this, and login and password are not root's
    :raises UnsupportedServer: this is not the management port, or that of a Milvus before 2.3.4
    :raises ServerError: Milvus says why it cannot
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):  # Milvus does not escape the quotes in a reason
        answer = None
    message = str(answer.get("msg", "")) if isinstance(answer, dict) else ""
    if status == 200 and message == "OK":
        return str(answer.get("ticket") or "")
    if status in (401, 403):
        raise AuthError(f"Milvus at {base_url} lets only root {doing} (HTTP status {status}); give the Milvus connection root's password")
    if status == 404:
        raise UnsupportedServer(f"what answers at {base_url} cannot {doing}: Milvus can since 2.3.4; if this one is newer, {_REMEDY}")
    if status in (502, 503, 504) and not message:
        raise ServerUnreachable(f"what answers at {base_url} does not reach Milvus (HTTP status {status}); {_REMEDY}", status)
    reason = message or (text.strip() if '"msg"' in text else "")
    if status == 200 or not reason:
        raise UnsupportedServer(f"what answers at {base_url} is not Milvus's management port (HTTP status {status}); {_REMEDY}")
    raise ServerError(f"Milvus at {base_url} cannot {doing}: {reason[:300]} (HTTP status {status}); its log says more", status)
