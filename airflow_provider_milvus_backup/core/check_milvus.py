"""The lines of a preflight about Milvus: is it there, what can it do, and may the user of the connection ask for it."""

from __future__ import annotations

from .capabilities import NEWEST, Capability, is_release
from .check_subject import CLOSELY, Subject
from .checking import FAIL, PASS, SKIP, WARN, Check, Finding
from .errors import AuthError, ServerError, ServerUnreachable, UnsupportedServer
from .gc_pause import PAUSE, REQUEST_SECONDS, management_login, management_url, ticket_of
from .names import CollectionName, restore_of, select
from .raw_schema import is_external
from .rbac_transfer import backup_rbac
from .report import counted, listed
from .rest import LIST, base_url, tls
from .restore_plan import NEWEST_STORAGE
from .rpc import messages
from .settings import MilvusAddress

#: What decides how backups and restores go, in the order in which it is told.
_WAYS = (
    Capability.REST_IMPORT,
    Capability.L0_IMPORT,
    Capability.GC_PAUSE,
    Capability.FLUSH_ALL,
    Capability.SEGMENTS_DESCRIBE,
    Capability.RBAC,
    Capability.SNAPSHOTS,
)
#: What Milvus says to a pause of no length (``internal/datacoord/services.go``, GcControl): it knows the request, and has changed nothing.
_KNOWN = "pause duration not valid"
_LOGIN = "correct login and password, or the token, of the Milvus connection"
_PRIVILEGES = "let an administrator of Milvus grant them to a role of this user, on all collections (`*`)"


def connect(subject: Subject) -> Finding:
    """Look whether something that speaks Milvus's gRPC answers."""
    address = subject.server.address
    try:
        subject.server.version  # noqa: B018 (asks)
    except AuthError:
        return Finding(PASS, f"Milvus at {address} answers, and wants a login")
    return Finding(PASS, f"Milvus at {address} answers{' over TLS' if address.secure else ''}")


def login(subject: Subject) -> Finding:
    """Look whether user, password or token are accepted."""
    subject.server.version  # noqa: B018 (asks again what was refused)
    return Finding(PASS, f"{_who(subject)} is let in")


def version(subject: Subject) -> Finding:
    """Look whether the version is supported, and say what it can do."""
    server = subject.server
    server.check_release()
    can = [way.value for way in _WAYS if server.can(way)]
    cannot = [way.value for way in _WAYS if not server.can(way)]
    text = f"Milvus {server.version}" + (f" can {'; '.join(can)}" if can else "") + (f". It cannot {'; '.join(cannot)}" if cannot else "")
    if server.capabilities.release == NEWEST or not is_release(server.version):
        return Finding(WARN, f"{text}. The version is that of no release, and is taken for a new one", "back up and restore with a release")
    return Finding(PASS, text)


def collections(subject: Subject) -> Finding:
    """Look what there is to back up, and whether the selection picks it."""
    server = subject.server
    available = [CollectionName(database, name) for database in server.databases() for name in server.collections(database)]
    built = [name for name in available if restore_of(name)]
    if not available and not subject.patterns:
        remedy = "correct host and port if it should have some; to restore into it none are needed"
        return Finding(WARN, "Milvus has no collections", remedy)
    chosen = select(available, subject.patterns, server.address.database)
    subject.selected = [name for name in chosen if name not in built or {str(name), name.collection} & set(subject.patterns)]
    return Finding(PASS, f"{len(subject.selected)} of {counted(len(available), 'collection')} selected")


def read(subject: Subject) -> Finding:
    """Ask all that a backup asks about some of the collections, which is also what shows whether it may ask."""
    external, newer = [], []
    looked_at = subject.selected[:CLOSELY]
    if not looked_at:
        return Finding(SKIP, "not checked because there is no collection that could be read")
    for name in looked_at:
        if subject.server.collection_id(name) is None:  # dropped meanwhile
            continue
        described = subject.server.describe(name)
        if is_external(described):
            external.append(name)
            continue
        subject.server.partitions(name)
        subject.server.indexes(name)
        subject.server.load_state(name)
        if any(segment.storage_version > NEWEST_STORAGE for segment in subject.server.segments(name)):
            newer.append(name)
    if newer:
        remedy = "back these up with format='snapshot', or leave them out"
        return Finding(WARN, f"segments in a storage version that a copy of binlogs cannot hold: {listed(newer)}", remedy)
    if external:
        remedy = "leave them out, or know that a backup leaves them out"
        return Finding(WARN, f"external collections, whose data is not in Milvus: {listed(external)}", remedy)
    of = f" (of {len(subject.selected)})" if len(looked_at) < len(subject.selected) else ""
    return Finding(PASS, f"schema, partitions, indexes, load state and segments of {counted(len(looked_at), 'collection')}{of} can be read")


def backup_privileges(subject: Subject) -> Finding:
    """Ask for a flush of a collection that does not exist: the privilege is looked at first."""
    denied = _denied(subject, {"Flush": {"collection_names": [_nobody(subject)]}})
    unless = ", unless it is granted on the collections by name, which cannot be asked without a flush"
    return _privileges(subject, denied, WARN, "flush, as a backup does", unless)


def restore_privileges(subject: Subject) -> Finding:
    """Ask for what a restore does, of a collection that does not exist, or with a schema that none can have."""
    nobody, server = _nobody(subject), subject.server
    asked: dict[str, dict[str, object]] = {
        "CreateCollection": {"collection_name": nobody, "schema": b""},
        "CreatePartition": {"collection_name": nobody, "partition_name": "probe"},
        "CreateIndex": {"collection_name": nobody, "field_name": "probe"},
        "RenameCollection": {"oldName": nobody, "newName": f"{nobody}_"},
        "DropCollection": {"collection_name": nobody},
        "LoadCollection": {"collection_name": nobody, "replica_number": 1},
    }
    if server.can(Capability.IMPORT_V2):  # 2.3 looks for a minute for a collection that does not exist
        asked["Import"] = {"collection_name": nobody, "files": ["probe"]}
    return _privileges(subject, _denied(subject, asked), FAIL, "create, load, rename and drop collections, as a restore does")


def rbac(subject: Subject) -> Finding:
    """Look whether users, roles and grants may be asked for."""
    backup_rbac(subject.server)
    return Finding(PASS, "users, roles and grants can be read")


def rest(subject: Subject) -> Finding:
    """Look whether REST answers, where imports go by it."""
    server = subject.server
    if not server.can(Capability.REST_IMPORT):
        return Finding(PASS, f"not needed: Milvus {server.version} imports by gRPC")
    url = base_url(server.address)
    try:
        server.rest.call(LIST, {}, "list import jobs", server.address.database, seconds=10)
    except (ServerUnreachable, UnsupportedServer) as error:
        server.capabilities.learn(Capability.REST_IMPORT, works=False)
        server.capabilities.learn(Capability.SEGMENTS_DESCRIBE, works=False)
        return Finding(
            WARN,
            f"REST cannot be reached at {url}, so imports go by gRPC, one segment a job, and segments are told from listings: {error}",
            "set rest_endpoint of the Milvus connection if it is elsewhere, or enable proxy.http in Milvus",
        )
    except AuthError as error:
        if error.code == 401:  # else a list of all databases needs a privilege that nothing else needs
            remedy = "correct rest_endpoint of the Milvus connection, or whatever stands between here and there"
            return Finding(FAIL, f"REST at {url} refuses the login that gRPC accepts: {error}", remedy)
    except ServerError:  # it answers
        pass
    return Finding(PASS, f"REST answers at {url}; imports go by it")


def management(subject: Subject) -> Finding:
    """Look whether Milvus's garbage collection can be paused, by a request that pauses nothing."""
    server = subject.server
    if not server.can(Capability.GC_PAUSE):
        return Finding(
            WARN,
            f"Milvus {server.version} cannot pause its garbage collection",
            "nothing is lost: a backup plans again what Milvus removed meanwhile; upgrade to 2.3.4 or newer to spare it that",
        )
    remedy = "set management_endpoint of the Milvus connection; without it backups go on, and plan again what Milvus removed meanwhile"
    try:
        ask_for_no_pause(server.address)
    except UnsupportedServer as error:  # names management_endpoint by itself
        return Finding(WARN, str(error), "nothing is lost: backups go on, and plan again what Milvus removed meanwhile")
    except ServerError as error:
        return Finding(WARN, f"garbage collection cannot be paused: {error}", remedy)
    return Finding(PASS, f"garbage collection can be paused at {management_url(server.address)}")


def ask_for_no_pause(address: MilvusAddress) -> None:
    """Ask for a pause of no length, which Milvus refuses once it has understood.

    :raises ServerUnreachable, AuthError, UnsupportedServer, ServerError: it would not pause either
    """
    import httpx

    url, login_ = management_url(address), management_login(address)
    verify = tls(address) if url.startswith("https:") else False
    asked = {"params": {"pause_seconds": "none"}, "timeout": REQUEST_SECONDS}
    try:
        with httpx.Client(trust_env=False, verify=verify) as client:
            response = client.get(f"{url}{PAUSE}", **asked)  # type: ignore[arg-type]
            if response.status_code == 401 and login_:
                response = client.get(f"{url}{PAUSE}", auth=login_, **asked)  # type: ignore[arg-type]
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise ServerUnreachable(f"Milvus at {url} does not answer ({str(error) or type(error).__name__})") from None
    try:
        ticket_of(response.status_code, response.text, "pause garbage collection", url)
    except ServerError as error:
        if _KNOWN not in str(error):
            raise


def _nobody(subject: Subject) -> str:
    return f"airflow_check_{subject.run}"


def _denied(subject: Subject, asked: dict[str, dict[str, object]]) -> list[str]:
    """Return which requests are not let in; what is answered to the others is of no interest, for they can do nothing."""
    denied = []
    for rpc, fields in asked.items():
        try:
            subject.server.ask(rpc, getattr(messages(), f"{rpc}Request")(**fields), f"look whether it may {rpc}")
        except AuthError:
            denied.append(rpc)
        except ServerUnreachable:
            raise
        except ServerError:
            pass
    return denied


def _privileges(subject: Subject, denied: list[str], status: str, doing: str, unless: str = "") -> Finding:
    if denied:
        return Finding(status, f"{_who(subject)} lacks the privilege for {', '.join(denied)}{unless}", _PRIVILEGES)
    return Finding(PASS, f"{_who(subject)} may {doing}")


def _who(subject: Subject) -> str:
    address = subject.server.address
    if address.token:
        return "the token"
    return f"user {address.user!r}" if address.user else "everybody, without a login,"


CHECKS: tuple[Check[Subject], ...] = (
    Check("milvus.connect", connect, remedy="correct host, port and TLS of the Milvus connection, and look whether Milvus runs"),
    Check("milvus.login", login, ("milvus.connect",), _LOGIN),
    Check("milvus.version", version, ("milvus.login",), "upgrade Milvus"),
    Check("milvus.collections", collections, ("milvus.login",), "correct `collections`, or grant ListDatabases and ShowCollections"),
    Check("milvus.read", read, ("milvus.collections",), _PRIVILEGES),
    Check("milvus.backup_privileges", backup_privileges, ("milvus.version",), _PRIVILEGES),
    Check("milvus.restore_privileges", restore_privileges, ("milvus.version",), _PRIVILEGES),
    Check("milvus.rbac", rbac, ("milvus.version",), "use root, or leave include_rbac off"),
    Check("milvus.rest", rest, ("milvus.version",), "correct rest_endpoint of the Milvus connection"),
    Check("milvus.management", management, ("milvus.version",), "correct management_endpoint of the Milvus connection"),
)
