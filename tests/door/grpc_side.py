"""The door's gRPC: every request goes to the real server, but for those whose answer would give its age away."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
from pymilvus.grpc_gen import milvus_pb2

from tests.breaking.faulty_grpc import Answer, FaultyGrpc
from tests.door.refused import DATABASE_NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE, Refused

SERVICE = "milvus.proto.milvus.MilvusService"
#: Left to REST: a test whose provider imports over gRPC fails. A GetImportState that its client cancels would kill Milvus 2.3.5.
CLOSED = ("Import", "GetImportState", "ListImportTasks")
#: What DescribeDatabase says a database's id is; 2.3.5 tells it to nobody.
DEFAULT_DATABASE_ID = 1


class _Caller(NamedTuple):
    """Who asks, where grpc would have a context."""

    metadata: Sequence[tuple[str, str]]

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self.metadata


class GrpcSide(FaultyGrpc):
    """The proxy in front of the real server.

    :param version: what the server calls itself
    """

    def __init__(self, host: str, port: int, version: str) -> None:
        super().__init__(host, port, lambda _operation, _number: None)
        self._version = version

    def ask(self, rpc: str, request: Any, metadata: Sequence[tuple[str, str]]) -> Any:
        """Ask the real server on behalf of REST and return its answer, which is never cancelled.

        :raises Refused: there is no answer; a status inside an answer is the caller's business
        """
        answer = self._forward(f"/{SERVICE}/{rpc}", request.SerializeToString(), _Caller(metadata), self._outages)
        if answer.code is grpc.StatusCode.UNAUTHENTICATED:
            raise Refused(UNAUTHENTICATED, "user hasn't authenticated", 401)
        if answer.code is grpc.StatusCode.PERMISSION_DENIED:
            raise Refused(65535, answer.details, 403)
        if answer.code is not grpc.StatusCode.OK:
            raise Refused(UNAVAILABLE, f"{answer.details}: service unavailable")
        return _answer_type(rpc).FromString(answer.message)

    def _answer(self, method: str, request: bytes, context: Any) -> Answer:
        operation = method.rpartition("/")[2]
        if operation in (*CLOSED, "DescribeDatabase"):
            self.requests[operation] += 1
            if operation in CLOSED:
                return Answer(code=grpc.StatusCode.UNIMPLEMENTED, details=f"the door answers {operation} over REST only")
            return self._describe_database(request, context)
        answer = super()._answer(method, request, context)
        if operation in ("GetVersion", "Connect") and answer.code is grpc.StatusCode.OK:
            message = _answer_type(operation).FromString(answer.message)
            if operation == "GetVersion":
                message.version = self._version
            else:
                message.server_info.build_tags = self._version
            answer = answer._replace(message=message.SerializeToString())
        return answer

    def _describe_database(self, request: bytes, context: Any) -> Answer:
        """Return name and id of a database, as far as 2.3.5 knows it; it has no properties there."""
        name = milvus_pb2.DescribeDatabaseRequest.FromString(request).db_name
        listed = self._forward(f"/{SERVICE}/ListDatabases", b"", context, self._outages)
        if listed.code is not grpc.StatusCode.OK:
            return listed
        databases = milvus_pb2.ListDatabasesResponse.FromString(listed.message)
        answer = milvus_pb2.DescribeDatabaseResponse(status=databases.status)
        if name in databases.db_names:
            answer.db_name = name
            answer.dbID = DEFAULT_DATABASE_ID if name == "default" else zlib.crc32(name.encode())
        elif not databases.status.code:
            answer.status.code, answer.status.error_code = DATABASE_NOT_FOUND, 1
            answer.status.reason = f"database not found[database={name}]"
        return Answer(answer.SerializeToString())


def _answer_type(rpc: str) -> Any:
    return getattr(milvus_pb2, f"{rpc}Response")
