"""How the versions differ, one frozen profile each; each entry says only what changed since the one before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: What a client sees of a job (``internal/datacoord/import_util.go``, GetJobProgress): internal state, shown state, progress from and to.
Phase = tuple[str, str, int, int]

_PENDING: Phase = ("Pending", "Pending", 0, 10)
_PRE_IMPORTING: Phase = ("PreImporting", "Importing", 10, 40)
_IMPORTING: Phase = ("Importing", "Importing", 40, 70)
_2_4: tuple[Phase, ...] = (_PENDING, _PRE_IMPORTING, _IMPORTING, ("IndexBuilding", "Importing", 70, 90))
_2_5: tuple[Phase, ...] = (_PENDING, _PRE_IMPORTING, _IMPORTING, ("Stats", "Importing", 70, 80), ("IndexBuilding", "Importing", 80, 90))
_2_6: tuple[Phase, ...] = (_PENDING, _PRE_IMPORTING, _IMPORTING, ("Sorting", "Importing", 70, 80), ("IndexBuilding", "Importing", 80, 90))
#: With `auto_commit` both last states are shown as Importing.
_3_0: tuple[Phase, ...] = (*_2_6, ("Uncommitted", "Importing", 99, 99), ("Committing", "Importing", 99, 99))


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of Milvus."""

    version: str
    phases: tuple[Phase, ...]

    # ---- what is listed and described (internal/proxy/impl.go, GetPersistentSegmentInfo) ---------------------------------------
    #: PersistentSegmentInfo.level, from 2.4.7 (#35023).
    lists_level: bool = False
    #: PersistentSegmentInfo.is_sorted, from 2.5.
    lists_sorted: bool = False
    #: PersistentSegmentInfo.storage_version, from 2.6.0 (#43348).
    lists_storage_version: bool = False
    #: Segments of an import are listed when they are written, flushed as they are (internal/datacoord/import_scheduler.go,
    #: processInProgressImport), though their job may still fail.
    lists_importing: bool = True
    #: What a clustering compaction has made is listed instead of its inputs, from 2.5 (#38512); before, beside them until it is indexed.
    clustered_once: bool = False
    #: Storage version of new segments: 1 = one directory per field, 2 = one per column group.
    storage_version: int = 1
    #: REST segments/describe, from 2.5.7 (#40466).
    segments_describe: bool = False

    # ---- flush -----------------------------------------------------------------------------------------------------------------
    #: FlushResponse.channel_cps, from 2.4.1 (#32044).
    channel_cps: bool = True
    #: Seconds between two flushes of one collection: quotaAndLimits.flushRate.collection.max is 0.1 (configs/milvus.yaml).
    flush_interval: float = 10.0
    #: FlushAll answers one message per pchannel instead of a timestamp, from 2.6.11 (internal/datacoord/services.go).
    flush_all_messages: bool = False

    # ---- schema and catalog ----------------------------------------------------------------------------------------------------
    nullable: bool = False
    functions: bool = False
    struct_arrays: bool = False
    add_field: bool = False
    #: The field may be a vector, from 2.6.18.
    add_vector: bool = False
    #: The property `max_field_id` of altered collections, 3.0.
    max_field_id: bool = False
    external_collections: bool = False
    describe_database: bool = True
    #: BackupRBAC and RestoreRBAC, from 2.4.9 (#35513).
    rbac: bool = False
    privilege_groups: bool = False
    #: RestoreRBAC refuses a meta without users, roles, grants and groups, from 2.6.
    refuses_empty_rbac: bool = False
    #: What RestoreRBAC says to a grant of all privileges, ``*``, before April 2026 (milvus #48963); nothing = it takes it.
    refuses_any_privilege: str = ""
    #: RestoreRBAC's refusals are invalid parameters, 3.0; before, they have no code of their own.
    rbac_invalid: bool = False

    # ---- import (internal/proxy/task_import.go, internal/datacoord/import_util.go, internal/util/importutilv2) -------------------
    #: REST jobs/import/describe beside get_progress, from 2.4.13 (#36753).
    import_describe: bool = False
    #: `end_ts` is a hybrid timestamp, from 2.4.24 (#40334) and 2.5.6 (#40333); before, milliseconds that are shifted.
    hybrid_end_ts: bool = False
    #: dataCoord.import.maxImportJobNum, from 2.4.14 (#36891).
    max_jobs: int | None = None
    #: dataCoord.import.maxImportFileNumPerReq, met by pairs in the request and by segments found below them.
    max_files: int = 1024
    #: Every field of the schema must have logs, nullable or not (binlog/util.go, verify), before 2.5.
    all_fields_required: bool = True
    #: `skip_disk_quota_check` counts for `l0_import` too, from 2.5; for `backup` it always does (importutilv2/option.go).
    l0_skips_quota: bool = False
    #: Several prefixes in one `l0_import` job, from 2.6.5 (#43213).
    many_l0_prefixes: bool = False
    #: dataCoord.import.enableL0Import, 3.0 (#51569).
    l0_disabled: bool = False
    #: Storage versions the option `storage_version` can name; anything else is 1.
    import_storage_versions: tuple[int, ...] = (1,)
    #: Imported rows get the moment of the commit as their timestamp, 3.0 (#48524); before, they keep their own.
    commit_ts: bool = False
    #: `auto_commit`, jobs/import/commit and abort, 3.0.
    two_phase: bool = False
    #: What comes before the reason of a refused request (internal/datacoord/ddl_callbacks_import.go), 2.6.
    refusal_prefix: str = ""
    #: Code of an unknown job and of too many jobs; ErrImportSysFailed in late 3.0 builds.
    import_sys_code: int = 2100
    create_time: bool = False
    #: dataCoord.import.taskRetention, seconds.
    retention: float = 10_800.0

    # ---- the rest --------------------------------------------------------------------------------------------------------------
    #: GC pause by collection with tickets, from 2.6.8 (#46201); before, one pause for the whole cluster (internal/proxy/management.go).
    gc_tickets: bool = False
    #: manual L0 compaction, from 2.6 (#44440).
    l0_compaction: bool = False
    snapshots: bool = False
    #: ExportSnapshot and RestoreExternalSnapshot do something (#52476), after 3.0.0.
    snapshot_export: bool = False

    @property
    def release(self) -> str:
        """The version without its ``v``."""
        return self.version.removeprefix("v")


_V2_4_5 = Profile("v2.4.5", _2_4)
_V2_4_24 = replace(
    _V2_4_5,
    version="v2.4.24",
    lists_level=True,
    rbac=True,
    refuses_any_privilege="privilege group [] does not exist",
    import_describe=True,
    hybrid_end_ts=True,
    max_jobs=1024,
)
_V2_5_4 = replace(
    _V2_4_24,
    version="v2.5.4",
    phases=_2_5,
    lists_sorted=True,
    clustered_once=True,
    nullable=True,
    functions=True,
    privilege_groups=True,
    all_fields_required=False,
    l0_skips_quota=True,
    hybrid_end_ts=False,
)
_V2_5_10 = replace(_V2_5_4, version="v2.5.10", hybrid_end_ts=True, segments_describe=True)
_V2_6_4 = replace(
    _V2_5_10,
    version="v2.6.4",
    phases=_2_6,
    lists_storage_version=True,
    storage_version=2,
    struct_arrays=True,
    add_field=True,
    refuses_empty_rbac=True,
    refuses_any_privilege="privilege [*] does not exist",
    import_storage_versions=(1, 2),
    refusal_prefix="failed to broadcast import: failed to validate import request: ",
    l0_compaction=True,
)
_V2_6_20 = replace(
    _V2_6_4,
    version="v2.6.20",
    refuses_any_privilege="",
    many_l0_prefixes=True,
    gc_tickets=True,
    flush_all_messages=True,
    add_vector=True,
    create_time=True,
)
_V3_0_0 = replace(
    _V2_6_20,
    version="v3.0.0",
    phases=_3_0,
    max_field_id=True,
    rbac_invalid=True,
    external_collections=True,
    l0_disabled=True,
    import_storage_versions=(1, 2, 3),
    commit_ts=True,
    two_phase=True,
    snapshots=True,
)
_V3_0_1 = replace(_V3_0_0, version="v3.0.1", snapshot_export=True, import_sys_code=2101)

PROFILES = {profile.release: profile for profile in (_V2_4_5, _V2_4_24, _V2_5_4, _V2_5_10, _V2_6_4, _V2_6_20, _V3_0_0, _V3_0_1)}
