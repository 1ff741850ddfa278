"""Collections are made anew on strict servers of several versions, over gRPC: with the same ids, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from airflow_provider_milvus_backup.core import creating, meta, schema
from airflow_provider_milvus_backup.core.errors import UnsupportedServer
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract.servers import ContractServer, contract_server

SOURCE, TARGET = CollectionName("default", "docs"), CollectionName("default", "docs_restored")


@contextmanager
def running(version: str) -> Iterator[tuple[ContractServer, MilvusServer]]:
    with contract_server(version) as contract:
        server = MilvusServer(MilvusAddress(contract.host, contract.port))
        try:
            yield contract, server
        finally:
            server.close()


def everything() -> Any:
    """A schema of 2.6 with a function, a dynamic field, an array of structs, null and default values."""
    proto = schema_pb2.CollectionSchema(name="docs", description="what there is", enable_dynamic_field=True)
    proto.fields.add(name="pk", data_type=5, is_primary_key=True)
    proto.fields.add(name="text", data_type=21).type_params.add(key="enable_analyzer", value="true")
    proto.fields.add(name="sparse", data_type=104, is_function_output=True)
    proto.fields.add(name="n", data_type=5, nullable=True, default_value=schema_pb2.ValueField(long_data=7))
    proto.fields.add(name="key", data_type=21, is_clustering_key=True)
    proto.functions.add(name="bm25", type=1, input_field_names=["text"], output_field_names=["sparse"])
    struct = proto.struct_array_fields.add(name="parts")
    struct.fields.add(name="part", data_type=22, element_type=5)
    struct.fields.add(name="vectors", data_type=106, element_type=101).type_params.add(key="dim", value="4")
    return proto


def added(name: str, **more: Any) -> Any:
    return schema_pb2.FieldSchema(name=name, data_type=21, nullable=True, **more)


def make(server: MilvusServer, proto: Any, *fields: Any) -> tuple[meta.Collection, bytes]:
    """Make a collection as its user did; return it as a backup has it, and its raw schema."""
    request = milvus_pb2.CreateCollectionRequest(collection_name="docs", schema=proto.SerializeToString(), shards_num=2)
    request.properties.add(key="mmap.enabled", value="true")
    server._call("CreateCollection", request, "make the collection", "default")
    for field in fields:
        more = milvus_pb2.AddCollectionFieldRequest(collection_name="docs", schema=field.SerializeToString())
        server._call("AddCollectionField", more, "add a field", "default")
    described = server.describe(SOURCE)
    partitions = [meta.Partition(number, name, []) for number, name in server.partitions(SOURCE)]
    properties = [(pair.key, pair.value) for pair in described.properties]
    collection = meta.Collection(
        described.collectionID, SOURCE, schema.from_proto(described.schema), 2, 1, partitions, properties=properties
    )
    return collection, described.schema.SerializeToString()


def held(contract: ContractServer, name: CollectionName) -> Any:
    """The schema as the server has it, with the dynamic field."""
    found = contract.model.collection(name).schema
    copied = schema_pb2.CollectionSchema.FromString(found.SerializeToString())
    copied.name = ""
    return copied


@pytest.mark.parametrize("version", ["2.6.20", "3.0.0"])
def test_a_collection_with_everything_and_added_fields_is_the_same_again(version: str) -> None:
    with running(version) as (contract, server):
        collection, raw = make(server, everything(), added("late"), added("later", is_clustering_key=True))
        creating.create(server, TARGET, collection, shards=2, raw=raw)
        assert held(contract, TARGET) == held(contract, SOURCE)
        assert [field.fieldID for field in held(contract, TARGET).fields] == [100, 101, 102, 103, 104, 105, 109, 110]
        requests = [request for name in ("CreateCollection", "AddCollectionField") for request in contract.recorder.of(name)]
        sent = [request.collection_name for request in requests if request.collection_name == TARGET.collection]
        assert sent == ["docs_restored"] * 3
        properties = dict(contract.model.collection(TARGET).properties)
        highest = {"max_field_id": "110"} if version == "3.0.0" else {}
        assert properties == {"mmap.enabled": "true", "disable_func_runtime_check": "false", **highest}


def test_without_the_raw_schema_all_is_the_same_but_what_the_format_cannot_carry() -> None:
    with running("3.0.0") as (contract, server):
        collection, _ = make(server, everything(), added("late"))
        creating.create(server, TARGET, collection, shards=2)
        expected = held(contract, SOURCE)
        next(field for field in expected.fields if field.name == "key").ClearField("is_clustering_key")
        assert held(contract, TARGET) == expected


def test_functions_of_2_5_are_created_without_a_property_that_it_does_not_know() -> None:
    proto = everything()
    proto.ClearField("struct_array_fields")
    with running("2.5.10") as (contract, server):
        collection, raw = make(server, proto)
        creating.create(server, TARGET, collection, shards=2, raw=raw)
        assert held(contract, TARGET) == held(contract, SOURCE)
        assert contract.model.collection(TARGET).properties == {"mmap.enabled": "true"}
        assert contract.requests["AlterCollection"] == contract.requests["AddCollectionField"] == 0


@pytest.mark.parametrize(
    ("version", "struct", "text"),
    [
        ("2.5.10", True, r"field 'parts' needs a Milvus that can have arrays of structs, which is 2\.6\.4 or newer; this one is v2\.5\.10"),
        ("2.5.10", False, r"field 'late', which was added later, needs .* 2\.6\.0 or newer"),
        ("2.4.24", False, r"field 'text' needs a Milvus that can analyze text, which is 2\.5\.0 or newer"),
    ],
)
def test_an_older_server_is_not_asked_for_what_it_does_not_know(version: str, struct: bool, text: str) -> None:
    proto = everything()
    if not struct:
        proto.ClearField("struct_array_fields")
    with running("2.6.20") as (_, newer):
        collection, raw = make(newer, proto, added("late"))
    with running(version) as (contract, server):
        with pytest.raises(UnsupportedServer, match=text):
            creating.create(server, TARGET, collection, shards=2, raw=raw)
        assert contract.requests["CreateCollection"] == 0


def test_a_field_whose_addition_was_answered_with_an_error_after_it_was_done_is_not_added_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("2.6.20") as (contract, server):
        collection, raw = make(server, everything(), added("late"))
        add_field = contract.model.add_field
        answers = []

        def lost(*arguments: Any) -> None:
            add_field(*arguments)
            if not answers:
                answers.append("lost")
                contract.disconnect()

        monkeypatch.setattr(contract.model, "add_field", lost)
        creating.create(server, TARGET, collection, shards=2, raw=raw)
        assert held(contract, TARGET) == held(contract, SOURCE)
        assert answers == ["lost"]
