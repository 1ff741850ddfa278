"""What a server calls its version is read rightly, and every capability begins and ends where Milvus's own source has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from airflow_provider_milvus_backup.core.capabilities import (
    NEWEST,
    SUPPORTED,
    TABLE,
    Capabilities,
    Capability,
    Release,
    first_release,
    is_release,
    offers,
    parse_version,
)
from airflow_provider_milvus_backup.core.errors import UnsupportedServer
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract.profiles import PROFILES, Profile
from tests.contract.servers import contract_server

LAST = 9999  # what a development build counts as

# ---- versions ----------------------------------------------------------------------------------------------------------------------

READ = [
    ("v2.4.1", (2, 4, 1)),
    ("2.4.1", (2, 4, 1)),
    (" v2.6.20\n", (2, 6, 20)),
    ("v3.0.0", (3, 0, 0)),
    ("v2.10.3", (2, 10, 3)),
    ("2.5.20.1", (2, 5, 20)),
    ("v2.3.5-lite", (2, 3, 5)),
    ("v2.5.0-beta", (2, 5, 0)),
    ("v2.6.0-rc1", (2, 6, 0)),
    ("2.4.6+build.7", (2, 4, 6)),
    ("2.6-20260404-abc1234", (2, 6, LAST)),
    ("v2.5-20250101-0123abc-amd64", (2, 5, LAST)),
    ("2.6", (2, 6, LAST)),
    ("Zilliz Cloud Vector Database(Compatible with Milvus 2.6)", (2, 6, LAST)),
    ("Zilliz Cloud (Compatible with Milvus v2.5)", (2, 5, LAST)),
    ("Compatible with Milvus 2.4.13", (2, 4, 13)),
    ("master-20260404-abc1234", NEWEST),
    ("milvus_lite-3.2.2", NEWEST),
    ("a1b2c3d", NEWEST),
    ("unknown", NEWEST),
    ("", NEWEST),
]


@pytest.mark.parametrize(("text", "release"), READ)
def test_a_version_is_read(text: str, release: Release) -> None:
    assert parse_version(text) == release


@pytest.mark.parametrize("capability", Capability, ids=lambda one: one.name)
def test_a_build_of_a_line_can_what_any_release_of_it_can(capability: Capability) -> None:
    for first in TABLE[capability].first:
        assert offers(parse_version(f"{first[0]}.{first[1]}-20260404-abc1234"), capability)


@pytest.mark.parametrize("text", ["v2.4.1", "2.5.20.1", "v2.3.5-lite", "2.4.6+build.7"])
def test_a_build_tag_that_is_a_version_counts(text: str) -> None:
    assert is_release(text)


@pytest.mark.parametrize("text", ["", "a1b2c3d", "2.6", "2.6-20260404-abc1234", "master", "release-2.4.1", "v2.4.1x"])
def test_a_build_tag_that_is_none_does_not(text: str) -> None:
    assert not is_release(text)


# ---- the table ---------------------------------------------------------------------------------------------------------------------


def before(release: Release) -> Release:
    """The last release before one, of the line before if need be."""
    major, minor, patch = release
    if patch:
        return major, minor, patch - 1
    return (major, minor - 1, LAST) if minor else (major - 1, LAST, LAST)


FIRSTS = [(capability, first) for capability, since in TABLE.items() for first in since.first]


def test_the_table_has_every_capability() -> None:
    assert set(TABLE) == set(Capability)


@pytest.mark.parametrize(("capability", "first"), FIRSTS, ids=[f"{one.name}-{'.'.join(map(str, first))}" for one, first in FIRSTS])
def test_a_capability_begins_with_its_first_release_in_every_line(capability: Capability, first: Release) -> None:
    assert offers(first, capability)
    assert not offers(before(first), capability) or before(first)[:2] != first[:2]
    # Lines before it that are not named never get it.
    if first == TABLE[capability].first[0]:
        assert not offers(before(first), capability)


@pytest.mark.parametrize("capability", Capability, ids=lambda one: one.name)
def test_a_capability_stays_unless_it_is_said_to_go(capability: Capability) -> None:
    until = TABLE[capability].until
    assert offers(NEWEST, capability) == (until is None)
    if until:
        assert offers(before(until), capability)
        assert not offers(until, capability)
        assert not offers((until[0], until[1] + 1, 0), capability)


@pytest.mark.parametrize(
    ("capability", "lacking", "having"),
    [
        (Capability.HYBRID_END_TS, ["2.3.5", "2.4.23", "2.5.0", "2.5.5"], ["2.4.24", "2.4.30", "2.5.6", "2.6.0", "3.0.0"]),
        (Capability.NULLABLE_VECTOR, ["2.4.24", "2.5.27", "2.6.17"], ["2.6.18", "3.0.0"]),
        (Capability.L0_IMPORT, ["2.3.22", "2.4.4", "3.0.0", "3.0.1", "3.1.0"], ["2.4.5", "2.5.0", "2.6.20"]),
        (Capability.MANY_L0, ["2.5.27", "2.6.4", "3.0.0"], ["2.6.5", "2.6.20"]),
        (Capability.SEGMENTS_DESCRIBE, ["2.4.24", "2.5.7"], ["2.5.8", "2.6.0", "3.0.0"]),
        (Capability.REST_IMPORT, ["2.2.9", "2.3.22"], ["2.4.0", "2.5.0", "2.6.0", "3.0.0"]),
        (Capability.IMPORTING_LISTED, ["2.3.22"], ["2.4.0", "2.5.10", "2.6.0", "3.0.0"]),
        (Capability.CLUSTERED_ONCE, ["2.4.24"], ["2.5.0", "2.6.0", "3.0.0"]),
        (Capability.RBAC, ["2.3.22", "2.4.8"], ["2.4.9", "2.5.0"]),
        (Capability.GC_PAUSE, ["2.3.3"], ["2.3.4", "2.4.0"]),
        (Capability.GC_TICKETS, ["2.6.7", "2.5.27"], ["2.6.8", "3.0.0"]),
        (Capability.FLUSH_ALL, ["2.6.10", "2.5.27"], ["2.6.11", "3.0.0"]),
        (Capability.SNAPSHOTS, ["2.6.20", "3.0.0"], ["3.0.1"]),
    ],
    ids=lambda value: value.name if isinstance(value, Capability) else "",
)
def test_releases_have_what_their_source_has(capability: Capability, lacking: list[str], having: list[str]) -> None:
    assert [text for text in (*lacking, *having) if offers(parse_version(text), capability)] == having


#: What a stand-in of a version (``tests/contract``) does, by what the table says that it can.
BEHAVIOUR: dict[Capability, Callable[[Profile], bool]] = {
    Capability.SEGMENT_LEVEL: lambda one: one.lists_level,
    Capability.SEGMENTS_DESCRIBE: lambda one: one.segments_describe,
    Capability.IMPORTING_LISTED: lambda one: one.lists_importing,
    Capability.CLUSTERED_ONCE: lambda one: one.clustered_once,
    Capability.STORAGE_V2: lambda one: 2 in one.import_storage_versions,
    Capability.HYBRID_END_TS: lambda one: one.hybrid_end_ts,
    Capability.L0_IMPORT: lambda one: not one.l0_disabled,
    Capability.MANY_L0: lambda one: one.many_l0_prefixes and not one.l0_disabled,
    Capability.GC_TICKETS: lambda one: one.gc_tickets,
    Capability.FLUSH_ALL: lambda one: one.flush_all_messages,
    Capability.DESCRIBE_DATABASE: lambda one: one.describe_database,
    Capability.RBAC: lambda one: one.rbac,
    Capability.NULLABLE: lambda one: one.nullable,
    Capability.NULLABLE_VECTOR: lambda one: one.add_vector,
    Capability.FUNCTIONS: lambda one: one.functions,
    Capability.STRUCT_ARRAY: lambda one: one.struct_arrays,
    Capability.ADD_FIELD: lambda one: one.add_field,
    Capability.SNAPSHOTS: lambda one: one.snapshot_export,
}


@pytest.mark.parametrize("version", PROFILES)
def test_the_table_and_the_contract_servers_say_the_same_of_every_version(version: str) -> None:
    profile = PROFILES[version]
    said = {capability for capability in BEHAVIOUR if offers(parse_version(profile.version), capability)}
    assert said == {capability for capability, does in BEHAVIOUR.items() if does(profile)}


def test_first_releases_are_named_line_by_line() -> None:
    assert first_release(Capability.HYBRID_END_TS) == "2.4.24 and 2.5.6"
    assert first_release(Capability.GC_PAUSE) == "2.3.4"


# ---- one server --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2.3.5", "v2.6.20"])
@pytest.mark.parametrize("works", [True, False])
def test_what_a_probe_has_shown_beats_the_version(version: str, works: bool) -> None:
    capabilities = Capabilities(version)
    others = {one: capabilities.has(one) for one in Capability if one is not Capability.SEGMENTS_DESCRIBE}
    capabilities.learn(Capability.SEGMENTS_DESCRIBE, works)
    assert capabilities.has(Capability.SEGMENTS_DESCRIBE) == works
    assert {one: capabilities.has(one) for one in others} == others
    assert Capabilities(version).has(Capability.SEGMENTS_DESCRIBE) == (version == "v2.6.20"), "another server has learned of it"


class Named(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
    """A server that only says who it is."""

    def __init__(self, build_tags: str | None, version: str) -> None:
        self.build_tags, self.version, self.asked = build_tags, version, list[str]()

    def Connect(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append("Connect")
        if self.build_tags is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method Connect")
        answer = milvus_pb2.ConnectResponse()
        answer.server_info.build_tags = self.build_tags
        return answer

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append("GetVersion")
        return milvus_pb2.GetVersionResponse(version=self.version)


@contextmanager
def serving(servicer: Named) -> Iterator[MilvusServer]:
    with ExitStack() as ends:
        server = grpc.server(ThreadPoolExecutor(2))
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        ends.callback(lambda: server.stop(None).wait())
        milvus = MilvusServer(MilvusAddress("127.0.0.1", port))
        ends.callback(milvus.close)
        yield milvus


@pytest.mark.parametrize(
    ("build_tags", "version", "taken", "release"),
    [
        ("v2.5.4", "2.6-20260404-abc", "v2.5.4", (2, 5, 4)),
        ("2.5.20.1", "v9.9.9", "2.5.20.1", (2, 5, 20)),
        ("a1b2c3d", "v2.3.5-lite", "v2.3.5-lite", (2, 3, 5)),
        ("2.6-20260404-abc", "v2.6.7", "v2.6.7", (2, 6, 7)),
        ("", "Zilliz Cloud Vector Database(Compatible with Milvus 2.5)", None, (2, 5, LAST)),
        (None, "v2.2.8", "v2.2.8", (2, 2, 8)),
    ],
)
def test_the_build_tag_is_the_version_if_it_is_one_and_otherwise_it_is_asked_for(
    build_tags: str | None, version: str, taken: str | None, release: Release
) -> None:
    servicer = Named(build_tags, version)
    with serving(servicer) as milvus:
        assert milvus.version == (taken or version)
        assert milvus.capabilities.release == release
        assert milvus.can(Capability.L0_SEGMENTS) == (release >= (2, 4, 0))
    assert servicer.asked == (["Connect"] if taken == build_tags else ["Connect", "GetVersion"]), "asked once, not more than needed"


@pytest.mark.parametrize("version", PROFILES)
def test_contract_servers_are_known_by_their_version(version: str) -> None:
    with contract_server(version) as server:
        milvus = MilvusServer(MilvusAddress(server.host, server.port))
        milvus.check_release()
        assert milvus.version == f"v{version}"
        assert milvus.capabilities.release == tuple(map(int, version.split(".")))
        milvus.close()


def test_a_milvus_that_is_too_old_is_refused_with_both_versions() -> None:
    with serving(Named(None, "v2.2.8")) as milvus, pytest.raises(UnsupportedServer, match=r"version v2\.2\.8.*need 2\.2\.9 or newer"):
        milvus.check_release()
    assert before(SUPPORTED) == (2, 2, 8)
