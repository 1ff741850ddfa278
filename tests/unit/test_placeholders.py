"""Vectors become the bytes that Milvus takes in a search, or are refused with what is wrong about them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, schema_pb2

from airflow_provider_milvus_backup.core import placeholders
from airflow_provider_milvus_backup.core.placeholders import BFLOAT16, BINARY, FLOAT, FLOAT16, INT8, SPARSE, TEXT, placeholder

NAMES = {"BinaryVector": BINARY, "FloatVector": FLOAT, "Float16Vector": FLOAT16, "BFloat16Vector": BFLOAT16}
NAMES |= {"SparseFloatVector": SPARSE, "Int8Vector": INT8}


@pytest.mark.parametrize(("name", "number"), NAMES.items())
def test_the_numbers_are_those_of_milvus_for_fields_and_for_placeholders(name: str, number: int) -> None:
    assert schema_pb2.DataType.Value(name) == common_pb2.PlaceholderType.Value(name) == number
    assert common_pb2.PlaceholderType.Value("VarChar") == TEXT
    assert number in placeholders.VECTORS


@pytest.mark.parametrize(
    ("kind", "vector", "dim", "content"),
    [
        (FLOAT, [1, -0.5], 2, "0000803f000000bf"),
        (FLOAT16, [1.0, -2.0], 2, "003c00c0"),
        (BFLOAT16, [1.0, -2.0], 2, "803f00c0"),
        (INT8, [1, -1, -128, 127], 4, "01ff807f"),
        (BINARY, [0, 255, 5], 24, "00ff05"),
        (SPARSE, {"7": 1.0, 2: 0.5}, 0, "020000000000003f07000000" + "0000803f"),
    ],
)
def test_a_vector_is_written_as_its_field_has_it(kind: int, vector: Any, dim: int, content: str) -> None:
    assert placeholder(kind, vector, dim) == (kind, bytes.fromhex(content))


def test_a_text_is_searched_as_a_text_where_a_function_makes_the_vector() -> None:
    assert placeholder(SPARSE, "größer") == (TEXT, "größer".encode())


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=64))
def test_floats_come_back_as_they_were(vector: list[float]) -> None:
    assert list(struct.unpack(f"<{len(vector)}f", placeholder(FLOAT, vector, len(vector))[1])) == vector


@given(st.dictionaries(st.integers(0, 2**32 - 2), st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_sparse_vectors_are_ordered_by_index(vector: dict[int, float]) -> None:
    pairs = list(struct.iter_unpack("<If", placeholder(SPARSE, {str(key): value for key, value in vector.items()})[1]))
    assert pairs == sorted(vector.items())


@pytest.mark.parametrize(
    ("kind", "vector", "dim", "why"),
    [
        (FLOAT, [1.0], 2, "it has 1 numbers, and the field takes 2"),
        (BINARY, [1] * 4, 16, "it has 4 numbers, and the field takes 2 bytes"),
        (FLOAT, "text", 2, "not a list of numbers"),
        (FLOAT, None, 2, "not a list of numbers"),
        (FLOAT, [1.0, "2"], 2, "not a list of numbers"),
        (FLOAT, [True, False], 2, "not a list of numbers"),
        (FLOAT, [1.0, float("nan")], 2, "outside the range"),
        (FLOAT, [1.0, 1e39], 2, "outside the range"),
        (FLOAT16, [70000.0], 1, "outside the range"),
        (INT8, [128], 1, "outside the range"),
        (INT8, [1.5], 1, "outside the range"),
        (BINARY, [256], 8, "outside the range"),
        (SPARSE, {}, 0, "neither a dictionary of index and value nor a text"),
        (SPARSE, "", 0, "neither a dictionary"),
        (SPARSE, [1.0], 0, "neither a dictionary"),
        (SPARSE, {"a": 1.0}, 0, "not all numbers of 32 bits"),
        (SPARSE, {-1: 1.0}, 0, "not all numbers of 32 bits"),
        (SPARSE, {1: None}, 0, "not all numbers of 32 bits"),
        (SPARSE, {1: float("inf")}, 0, "not all numbers of 32 bits"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_and_told_why(kind: int, vector: Any, dim: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        placeholder(kind, vector, dim)
