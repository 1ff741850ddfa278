"""A Milvus that only makes collections: it numbers fields as RootCoord does, and writes down what it was asked."""

from __future__ import annotations

from typing import Any

from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from airflow_provider_milvus_backup.core import meta, schema
from airflow_provider_milvus_backup.core.capabilities import Capabilities, Capability
from airflow_provider_milvus_backup.core.names import CollectionName

NAME = CollectionName("db", "docs")


class NumberingServer:
    """What creating asks of a MilvusServer, for one collection.

    :param shows_meta: whether DescribeCollection shows the dynamic field
    """

    def __init__(self, version: str, *, shows_meta: bool = False) -> None:
        self.version = version
        self.capabilities = Capabilities(version)
        self.shows_meta = shows_meta
        self.calls: list[tuple[str, Any]] = []
        self.schema = schema_pb2.CollectionSchema()
        self.properties: dict[str, str] = {}

    # ---- what MilvusServer has ---------------------------------------------------------------------------------------------

    def can(self, capability: Capability) -> bool:
        return self.capabilities.has(capability)

    def describe(self, name: CollectionName) -> Any:
        shown = schema_pb2.CollectionSchema.FromString(self.schema.SerializeToString())
        kept = [field for field in self.schema.fields if self.shows_meta or not field.is_dynamic]
        del shown.fields[:]
        shown.fields.extend(kept)
        answer = milvus_pb2.DescribeCollectionResponse(schema=shown)
        for key, value in self.properties.items():
            answer.properties.add(key=key, value=value)
            answer.schema.properties.add(key=key, value=value)
        return answer

    def _call(self, rpc: str, request: Any, doing: str, database: str, **_: Any) -> None:
        assert (request.collection_name, database) == (NAME.collection, NAME.database)
        self.calls.append((rpc, request))
        if rpc == "CreateCollection":
            sent = schema_pb2.CollectionSchema.FromString(request.schema)
            assert sent.name == request.collection_name
            self.create(sent, {pair.key: pair.value for pair in request.properties})
        elif rpc == "AddCollectionField":
            self.add_field(schema_pb2.FieldSchema.FromString(request.schema))
        elif rpc == "AddCollectionStructField":
            self.add_struct(request.struct_array_field_schema)
        else:
            assert rpc == "AlterCollection"
            self.properties.update({pair.key: pair.value for pair in request.properties})

    # ---- what RootCoord does -----------------------------------------------------------------------------------------------

    def create(self, sent: Any, properties: dict[str, str]) -> None:
        assert not any(field.is_dynamic or field.name == schema.DYNAMIC_FIELD for field in sent.fields)
        self.schema, self.properties = schema_pb2.CollectionSchema.FromString(sent.SerializeToString()), dict(properties)
        self.schema.name = NAME.collection
        if self.schema.enable_dynamic_field:
            self._add_meta()
        if self.schema.enable_namespace:
            self.schema.fields.add(name=schema.NAMESPACE_FIELD, data_type=21, is_partition_key=True)
        number = 100
        for field in self.schema.fields:
            field.fieldID, number = number, number + 1
        for struct in self.schema.struct_array_fields:
            number = number_struct(struct, number)
        self._keep_highest(number - 1)

    def add_field(self, field: Any) -> None:
        assert field.nullable
        number, added = self._next(), self.schema.fields.add()
        added.CopyFrom(field)
        added.fieldID = number
        self._keep_highest(added.fieldID)

    def add_struct(self, struct: Any) -> None:
        number, added = self._next(), self.schema.struct_array_fields.add()
        added.CopyFrom(struct)
        self._keep_highest(number_struct(added, number) - 1)

    def enable_dynamic(self) -> None:
        number = self._next()
        self.schema.enable_dynamic_field = True
        self._add_meta().fieldID = number
        self._keep_highest(number)

    def drop(self, name: str) -> None:
        for fields in (self.schema.fields, self.schema.struct_array_fields):
            for position, field in enumerate(fields):
                if field.name == name:
                    del fields[position]
                    break
        if name == schema.DYNAMIC_FIELD:
            self.schema.enable_dynamic_field = False

    def ids(self) -> dict[str, int]:
        """The id of everything that has one, ``$meta`` included."""
        found = {field.name: field.fieldID for field in (*self.schema.fields, *self.schema.struct_array_fields)}
        return {**found, **{f"{s.name}[{f.name}]": f.fieldID for s in self.schema.struct_array_fields for f in s.fields}}

    def _add_meta(self) -> Any:
        return self.schema.fields.add(name=schema.DYNAMIC_FIELD, data_type=23, is_dynamic=True)

    def _next(self) -> int:
        return 1 + max(*self.ids().values(), int(self.properties.get(schema.MAX_FIELD_ID, 0)))

    def _keep_highest(self, number: int) -> None:
        if self.capabilities.release >= (3, 0, 0):
            self.properties[schema.MAX_FIELD_ID] = str(number)


def number_struct(struct: Any, number: int) -> int:
    """Number an array of structs and its members; return the next number."""
    struct.fieldID = number
    for field in struct.fields:
        number += 1
        field.fieldID = number
    return number + 1


def backed_up(server: NumberingServer, columns: list[int] | None = None, **more: Any) -> meta.Collection:
    """The collection as a backup has it; ``columns`` are those of a segment of storage version 1."""
    described = server.describe(NAME)
    logs = [meta.FieldLogs(column, [meta.Log(1, 1)]) for column in columns or []]
    segments = [meta.Segment(1, 1, 1, logs, [], 1)] if logs else []
    return meta.Collection(
        4,
        CollectionName("old", "docs"),
        schema.from_proto(described.schema),
        2,
        1,
        [meta.Partition(1, "_default", segments)],
        properties=[(pair.key, pair.value) for pair in described.properties],
        **more,
    )
