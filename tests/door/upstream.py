"""What the door's REST asks of the real server and its bucket, on behalf of whoever asks the door."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any

from pymilvus.grpc_gen import milvus_pb2

from demo.servers import MilvusServer, S3Server
from tests.door.grpc_side import GrpcSide
from tests.door.refused import COLLECTION_NOT_FOUND, UNAUTHENTICATED, Refused
from tests.integration.clusters import listing

#: What 2.3.5 says of a collection that does not exist, by release and by request.
_NO_COLLECTION = (4, 100)


@dataclass(frozen=True)
class Caller:
    """Who asks, and for which database."""

    grpc: GrpcSide
    secret: str
    database: str

    def of(self, database: str) -> Caller:
        """Return the same caller in another database."""
        return replace(self, database=database)

    def ask(self, rpc: str, request: Any) -> Any:
        """Return the real server's answer; raises Refused with its code and reason when it is an error."""
        metadata = [("dbname", self.database)]
        if self.secret:
            metadata.append(("authorization", base64.b64encode(self.secret.encode()).decode()))
        answer = self.grpc.ask(rpc, request, metadata)
        code = answer.status.code or answer.status.error_code
        if code:
            raise Refused(code, answer.status.reason)
        return answer

    def collection(self, name: str = "", collection_id: int = 0) -> Any:
        """Return DescribeCollectionResponse."""
        try:
            return self.ask("DescribeCollection", milvus_pb2.DescribeCollectionRequest(collection_name=name, collectionID=collection_id))
        except Refused as refused:
            if refused.code not in _NO_COLLECTION:
                raise
            what = name or collection_id
            raise Refused(
                COLLECTION_NOT_FOUND, f"collection not found[database={self.database}][collection={what}]: collection not found"
            ) from None


@dataclass(frozen=True)
class Upstream:
    """The real server, its bucket, and who may ask."""

    milvus: MilvusServer
    s3: S3Server
    grpc: GrpcSide

    def caller(self, authorization: str, database: str) -> Caller:
        """Return who sent a request with this ``Authorization`` header; raises Refused when the real server does not know them."""
        if not self.milvus.user:
            return Caller(self.grpc, "", database)
        caller = Caller(self.grpc, _secret(authorization), database)
        if ":" not in caller.secret:  # an API key, which the open source server does not have
            raise Refused(UNAUTHENTICATED, "user hasn't authenticated", 401)
        caller.ask("GetVersion", milvus_pb2.GetVersionRequest())
        return caller

    def objects(self, prefix: str) -> dict[str, int]:
        """Return the size of every object of Milvus's bucket by its key."""
        return {key: size for key, (size, _) in listing(self.s3, self.milvus.bucket, prefix).items()}


def _secret(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind == "Basic":
        try:
            return base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return value if kind == "Bearer" else ""
