"""A Milvus that has users, roles, grants and databases, and nothing else."""

# ruff: noqa: N802 (the names are those of the protocol)

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from airflow_provider_milvus_backup.core.rbac import ANY, BUILT_IN_ROLES, BUILT_IN_USERS, from_proto
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress

FAILED = 1100


class RbacServer(milvus_pb2_grpc.MilvusServiceServicer):
    """Answers as Milvus 2.6 before 2.6.15 does, ``CheckIfRBACRestorable`` of ``internal/rootcoord/meta_table.go`` included."""

    def __init__(self, version: str = "v2.6.4") -> None:
        self.version = version
        self.rbac = milvus_pb2.RBACMeta()
        self.databases: dict[str, milvus_pb2.DescribeDatabaseResponse] = {"default": milvus_pb2.DescribeDatabaseResponse(dbID=1)}
        #: The next this many answers to RestoreRBAC are lost, after it did its work.
        self.lost_answers = 0
        #: What was asked for.
        self.requests: list[str] = []

    def Connect(self, request: Any, context: Any) -> Any:
        server_info = common_pb2.ServerInfo(build_tags=self.version)
        return milvus_pb2.ConnectResponse(status=common_pb2.Status(), server_info=server_info)

    def GetVersion(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)

    def BackupRBAC(self, request: Any, context: Any) -> Any:
        self.requests.append("BackupRBAC")
        return milvus_pb2.BackupRBACMetaResponse(status=common_pb2.Status(), RBAC_meta=self.rbac)

    def RestoreRBAC(self, request: Any, context: Any) -> Any:
        self.requests.append("RestoreRBAC")
        wanted = request.RBAC_meta
        if refusal := self._refusal(wanted):
            return common_pb2.Status(error_code=1, code=FAILED, reason=f"failed to check if rbac restorable: {refusal}")
        self.rbac.MergeFrom(wanted)
        if self.lost_answers:
            self.lost_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return common_pb2.Status()

    def OperatePrivilege(self, request: Any, context: Any) -> Any:
        self.requests.append("OperatePrivilege")
        if request.entity not in self.rbac.grants:
            self.rbac.grants.append(request.entity)
        return common_pb2.Status()

    def ListDatabases(self, request: Any, context: Any) -> Any:
        return milvus_pb2.ListDatabasesResponse(status=common_pb2.Status(), db_names=list(self.databases))

    def DescribeDatabase(self, request: Any, context: Any) -> Any:
        return self.databases[request.db_name]

    def CreateDatabase(self, request: Any, context: Any) -> Any:
        created = milvus_pb2.DescribeDatabaseResponse(db_name=request.db_name, dbID=900, properties=request.properties)
        self.databases[request.db_name] = created
        return common_pb2.Status()

    def _refusal(self, wanted: Any) -> str:
        if wanted == milvus_pb2.RBACMeta():
            return "rbac meta is empty"
        there = from_proto(self.rbac)
        users, roles = {user.name for user in there.users} | BUILT_IN_USERS, {*there.roles} | BUILT_IN_ROLES
        groups = {group.name for group in there.privilege_groups}
        asked = from_proto(wanted)
        known = roles.union(asked.roles)
        refusals = [
            *(f"role [{role}] already exists" for role in asked.roles if role in roles),
            *(f"privilege group [{group.name}] already exists" for group in asked.privilege_groups if group.name in groups),
            *(f"privilege [{ANY}] does not exist" for grant in asked.grants if grant.privilege == ANY),
            *(f"user [{user.name}] already exists" for user in asked.users if user.name in users),
            *(f"role [{role}] does not exist" for user in asked.users for role in user.roles if role not in known),
        ]
        return "; ".join(refusals)


class OldServer(milvus_pb2_grpc.MilvusServiceServicer):
    """Answers as Milvus 2.3 does: what it does not know is UNIMPLEMENTED."""

    version = "v2.3.5"

    Connect, GetVersion = RbacServer.Connect, RbacServer.GetVersion


@contextmanager
def serving(milvus: Any) -> Iterator[MilvusServer]:
    """Serve on loopback while the block runs, and give a client."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(milvus, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = MilvusServer(MilvusAddress("127.0.0.1", port))
    try:
        yield client
    finally:
        client.close()
        server.stop(None).wait()
