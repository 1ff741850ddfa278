"""What each golden backup holds, written by hand, value by value; ``head-snapshot`` has no segments and is not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from airflow_provider_milvus_backup.core.meta import Backup, Database, Index, Partition, Segment
from airflow_provider_milvus_backup.core.rbac import Grant, PrivilegeGroup, Rbac, User

from .shapes import (
    BOOKS,
    DEFAULT,
    DELETED,
    DOCS,
    EVENTS,
    FLUSHED,
    KEY,
    NESTED,
    PASSAGES,
    PRICES,
    SECOND,
    SECONDS,
    SINCE_0_5_10,
    TTL,
    WIDE,
    B,
    channel,
    deletes,
    docs,
    docs_segment,
    hnsw,
    inserts,
    one_each,
    only,
    varchar,
    vector,
)

GOLDEN = Path(__file__).parent

UUID = "7c1f2f0e-6f5f-4a55-9a0d-0d6f6f7f2a"
ON_DOCS = channel(DOCS)
DEFAULT_DATABASE = Database("default", 1)
LOST_L0 = "full_meta.json is missing: deletes kept in L0 segments may be lost, and rows they deleted may come back"
READER = Rbac([User("analyst", "$2a$10$hash", ["reader"])], ["reader"], [Grant("reader", "Collection", "*", "Search", "default", "root")])

EXPECTED: dict[str, Backup] = {
    "0.4.0": Backup(
        UUID + "01",
        "golden_0_4_0",
        "v2.2.16",
        [
            docs(
                [[docs_segment(201, DEFAULT, 40, None, 2016)], [docs_segment(211, SECOND, 20, None)]],
                indexes=[NESTED],
                backup_timestamp=SECONDS << 18,
                channel_checkpoints={},
            )
        ],
    ),
    "0.4.0-groups": Backup(
        UUID + "02",
        "golden_0_4_0_groups",
        "v2.3.5",
        [
            docs(
                [
                    [docs_segment(201, DEFAULT, 40, 1, 2016), docs_segment(202, DEFAULT, 40, 1), docs_segment(203, DEFAULT, 20, 2)],
                    [docs_segment(211, SECOND, 20, 1)],
                ],
                indexes=[NESTED],
                loads=("NotLoad", "NotLoad"),
                load_state="NotLoad",
                backup_timestamp=SECONDS << 18,
                channel_checkpoints={},
            )
        ],
    ),
    "0.4.26": Backup(
        UUID + "03",
        "golden_0_4_26",
        "2.4.15",
        [
            docs(one_each(listed=True), text={"default_value_proto": "2\x03n/a"}),
            only(
                PRICES,
                "shop",
                [
                    KEY,
                    {"fieldID": 101, "name": "price", "data_type": 10, "default_value_proto": "%\0\0\ufffd?"},
                    {"fieldID": 102, "name": "count", "data_type": 5, "default_value_proto": "\x18\x07"},
                    varchar(103, "note", 50, nullable=True),
                    vector(104),
                ],
                [
                    Partition(
                        B + 501,
                        "_default",
                        [
                            Segment(B + 511, B + 501, 10, inserts(2500, 0, 1, 100, 101, 102, 103, 104), [], B + 511),
                            Segment(B + 512, B + 501, 0, [], deletes(2600, listed=True), B + 512, is_l0=True),
                        ],
                        "NotLoad",
                    )
                ],
                name="prices",
                consistency_level=0,
                l0_segments=[Segment(B + 513, -1, 0, [], deletes(2700, listed=True), None, is_l0=True)],
            ),
        ],
        rbac=READER,
    ),
    "0.5.0": Backup(
        UUID + "04",
        "golden_0_5_0",
        "2.5.4",
        [
            docs(one_each(listed=True)),
            only(
                PASSAGES,
                "default",
                [
                    KEY,
                    {
                        "fieldID": 101,
                        "name": "body",
                        "data_type": 21,
                        "type_params": [{"key": "max_length", "value": "900"}, {"key": "enable_analyzer", "value": "true"}],
                    },
                    {"fieldID": 102, "name": "sparse", "data_type": 104, "is_function_output": True},
                ],
                [Partition(B + 601, "_default", [], "NotLoad")],
                name="passages",
                schema={
                    "functions": [
                        {
                            "name": "bm25",
                            "id": 100,
                            "type": 1,
                            "input_field_names": ["body"],
                            "input_field_ids": [101],
                            "output_field_names": ["sparse"],
                            "output_field_ids": [102],
                        }
                    ]
                },
                indexes=[
                    Index(
                        "sparse",
                        "sparse",
                        "SPARSE_INVERTED_INDEX",
                        {"bm25_b": "0.75", "bm25_k1": "1.2", "index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"},
                    )
                ],
            ),
        ],
    ),
    "0.5.4": Backup(
        UUID + "05",
        "golden_0_5_4",
        "2.5.10",
        [
            docs(
                [[docs_segment(201, DEFAULT, 40, B + 201, on=ON_DOCS)], [docs_segment(211, SECOND, 20, B + 211)]],
                text={"default_value_proto": "2\x03n/a"},
                l0_segments=[Segment(B + 231, -1, 3, [], deletes(2016), None, is_l0=True, v_channel=ON_DOCS)],
            )
        ],
        [DEFAULT_DATABASE, Database("shop", B + 7, [("database.replica.number", "1")])],
        rbac=replace(READER, privilege_groups=[PrivilegeGroup("searching", ["Search", "Query"])]),
    ),
    "0.5.10": Backup(
        UUID + "06",
        "golden_0_5_10",
        "2.5.20",
        [
            docs(
                [
                    [
                        docs_segment(201, DEFAULT, 40, B + 201, on=ON_DOCS),
                        Segment(B + 221, DEFAULT, 3, [], deletes(2016), B + 221, is_l0=True, v_channel=ON_DOCS),
                    ],
                    [docs_segment(211, SECOND, 20, B + 211, on=ON_DOCS)],
                ],
                text={"default_value_base64": "MgNuL2E="},
                properties=[TTL],
                indexes=[hnsw(B + 150)],
                aliases=["docs_live"],
                virtual_channels=[ON_DOCS],
                **SINCE_0_5_10,
            ),
            only(
                EVENTS,
                "default",
                [KEY, vector(101)],
                [
                    Partition(
                        B + 701,
                        "_default",
                        [Segment(B + 711, B + 701, 10, inserts(2700, 0, 1, 100, 101), [], B + 711, v_channel=channel(EVENTS))],
                        "NotLoad",
                    )
                ],
                name="events",
                l0_segments=[Segment(B + 713, -1, 3, [], deletes(2900), None, is_l0=True, v_channel=channel(EVENTS))],
                virtual_channels=[channel(EVENTS)],
                **SINCE_0_5_10,
            ),
        ],
        [DEFAULT_DATABASE],
    ),
    "head": Backup(
        UUID + "07",
        "golden_head",
        "v2.6.6",
        [
            docs(
                one_each(ON_DOCS, ON_DOCS),
                text={"default_value_base64": "MgNuL2E="},
                properties=[TTL, ("max_field_id", "103")],
                loads=("Loaded", "NotLoad"),
                load_state="Loading",
                indexes=[hnsw(B + 150)],
                aliases=["docs_live", "docs_next"],
                virtual_channels=[ON_DOCS],
                backup_timestamp=0,
                backup_physical_timestamp=0,
                channel_checkpoints={},
                **SINCE_0_5_10,
            ),
            only(
                WIDE,
                "shop",
                [
                    {**KEY, "autoID": True},
                    {
                        "fieldID": 101,
                        "name": "tags",
                        "data_type": 22,
                        "type_params": [{"key": "max_capacity", "value": "8"}],
                        "element_type": 5,
                        "nullable": True,
                    },
                    vector(102),
                ],
                [
                    Partition(
                        B + 801,
                        "_default",
                        [
                            Segment(
                                B + 811,
                                B + 801,
                                10,
                                inserts(2800, 0, 102),
                                deletes(2900, 2901),
                                B + 811,
                                v_channel=channel(WIDE, 1),
                                storage_version=2,
                            )
                        ],
                        "NotLoad",
                    )
                ],
                name="wide",
                schema={"autoID": True},
                flushed=False,
                virtual_channels=[channel(WIDE, 1)],
                **{**SINCE_0_5_10, "database_id": B + 7, "physical_channels": ["by-dev-rootcoord-dml_1"]},
            ),
        ],
        [DEFAULT_DATABASE, Database("shop", B + 7, [("cipher.ezID", "9"), ("cipher.key", "k")])],
        flush_all=FLUSHED,
    ),
    "head-l0": Backup(
        UUID + "08",
        "golden_head_l0",
        "2.5.20",
        [
            only(
                DELETED,
                "default",
                [KEY, vector(101)],
                [
                    Partition(
                        B + 901,
                        "_default",
                        [
                            Segment(B + 911, B + 901, 10, inserts(2900, 0, 1, 100, 101), [], B + 911, v_channel=channel(DELETED)),
                            Segment(B + 912, B + 901, 2, [], deletes(3000, 3001), B + 912, is_l0=True, v_channel=channel(DELETED)),
                        ],
                        "NotLoad",
                    ),
                    Partition(
                        B + 902,
                        "only_deletes",
                        [Segment(B + 921, B + 902, 4, [], deletes(3002), B + 921, is_l0=True, v_channel=channel(DELETED))],
                        "NotLoad",
                    ),
                ],
                name="deleted",
                l0_segments=[
                    Segment(B + 931, -1, 3, [], deletes(3100), None, is_l0=True, v_channel=channel(DELETED)),
                    Segment(B + 932, -1, 1, [], deletes(3101), None, is_l0=True, v_channel=channel(DELETED)),
                ],
                virtual_channels=[channel(DELETED)],
                **SINCE_0_5_10,
            )
        ],
        [DEFAULT_DATABASE],
    ),
    "head-structs": Backup(
        UUID + "09",
        "golden_head_structs",
        "v2.6.6",
        [
            only(
                BOOKS,
                "default",
                [KEY, vector(101)],
                [
                    Partition(
                        B + 1001,
                        "_default",
                        [
                            Segment(
                                B + 1011,
                                B + 1001,
                                10,
                                inserts(3000, 0, 101, 104),
                                [],
                                B + 1011,
                                v_channel=channel(BOOKS),
                                storage_version=2,
                            )
                        ],
                        "NotLoad",
                    )
                ],
                name="books",
                schema={
                    "struct_array_fields": [
                        {
                            "fieldID": 102,
                            "name": "chunks",
                            "description": "pieces of a book",
                            "fields": [
                                {
                                    "fieldID": 103,
                                    "name": "words",
                                    "data_type": 22,
                                    "type_params": [{"key": "max_length", "value": "30"}, {"key": "max_capacity", "value": "20"}],
                                    "element_type": 21,
                                },
                                {
                                    "fieldID": 104,
                                    "name": "embedding",
                                    "data_type": 106,
                                    "type_params": [{"key": "dim", "value": "4"}, {"key": "max_capacity", "value": "20"}],
                                    "element_type": 101,
                                },
                            ],
                        }
                    ]
                },
                indexes=[
                    Index(
                        "chunks[embedding]",
                        "chunks",
                        "HNSW",
                        {"M": "8", "efConstruction": "64", "index_type": "HNSW", "metric_type": "MAX_SIM_COSINE"},
                        B + 1051,
                    )
                ],
                flushed=False,
                virtual_channels=[channel(BOOKS)],
                **SINCE_0_5_10,
            )
        ],
        [DEFAULT_DATABASE],
    ),
    "head-levels-only": Backup(
        UUID + "10",
        "golden_head_levels_only",
        "2.5.20",
        [
            docs(
                one_each(ON_DOCS, ON_DOCS),
                properties=[TTL],
                indexes=[hnsw(B + 150)],
                aliases=["docs_live"],
                virtual_channels=[ON_DOCS],
                **SINCE_0_5_10,
            )
        ],
        warnings=[LOST_L0],
    ),
}
