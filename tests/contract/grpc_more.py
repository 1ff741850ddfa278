# ruff: noqa: N802 (methods are named as the RPCs are)
"""RPCs about users and snapshots."""

from __future__ import annotations

from typing import Any

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from .profiles import Profile
from .rbac import BUILT_IN_ROLES, ROOT, Grant, User
from .rpcs import Base, named, rpc
from .snapshots import COMPLETED


def _has_rbac(profile: Profile) -> bool:
    return profile.rbac


def _has_snapshots(profile: Profile) -> bool:
    return profile.snapshots


def _exports(profile: Profile) -> bool:
    # 3.0.0 answered in one step and does not know the RPCs that ask for a job.
    return profile.snapshot_export


def _grant(entity: Any) -> Grant:
    grantor = entity.grantor
    return Grant(entity.role.name, entity.object.name, entity.object_name, entity.db_name, grantor.privilege.name, grantor.user.name)


class MoreRpcs(Base):
    """Users and snapshots."""

    # ---- users -------------------------------------------------------------------------------------------------------------

    @rpc(milvus_pb2.BackupRBACMetaResponse, _has_rbac)
    def BackupRBAC(self, request: Any, database: str) -> Any:
        answer = milvus_pb2.BackupRBACMetaResponse()
        meta = answer.RBAC_meta
        # Without what every Milvus has (internal/metastore/kv/rootcoord/kv_catalog.go).
        for name, user in self.model.users.items():
            if name != ROOT:
                meta.users.add(user=name, password=user.password, roles=[milvus_pb2.RoleEntity(name=role) for role in user.roles])
        for role in self.model.roles:
            if role not in BUILT_IN_ROLES:
                meta.roles.add(name=role)
        for grant in self.model.grants:
            entity = meta.grants.add(object_name=grant.object_name, db_name=grant.database)
            entity.role.name, entity.object.name = grant.role, grant.object
            entity.grantor.user.name, entity.grantor.privilege.name = grant.grantor, grant.privilege
        if self.model.profile.privilege_groups:
            meta.privilege_groups.extend(self._groups())
        return answer

    @rpc(common_pb2.Status, _has_rbac)
    def RestoreRBAC(self, request: Any, database: str) -> None:
        meta = request.RBAC_meta
        grants = [_grant(entity) for entity in meta.grants]
        groups = {g.group_name: [privilege.name for privilege in g.privileges] for g in meta.privilege_groups}
        self.model.restore_rbac(
            {user.user: User(user.password, [role.name for role in user.roles]) for user in meta.users},
            [role.name for role in meta.roles],
            grants,
            groups if self.model.profile.privilege_groups else {},
        )

    @rpc(common_pb2.Status)
    def OperatePrivilege(self, request: Any, database: str) -> None:
        user = self.caller_name()
        grant = _grant(request.entity)._replace(grantor=user)
        if request.type == milvus_pb2.OperatePrivilegeType.Value("Revoke"):
            self.model.grants = [there for there in self.model.grants if there._replace(grantor=user) != grant]
        else:
            self.model.grant(grant)

    @rpc(milvus_pb2.ListPrivilegeGroupsResponse, lambda profile: profile.privilege_groups)
    def ListPrivilegeGroups(self, request: Any, database: str) -> Any:
        return milvus_pb2.ListPrivilegeGroupsResponse(privilege_groups=self._groups())

    def _groups(self) -> list[Any]:
        return [
            milvus_pb2.PrivilegeGroupInfo(group_name=name, privileges=[milvus_pb2.PrivilegeEntity(name=p) for p in privileges])
            for name, privileges in self.model.privilege_groups.items()
        ]

    # ---- snapshots ---------------------------------------------------------------------------------------------------------

    @rpc(common_pb2.Status, _has_snapshots)
    def CreateSnapshot(self, request: Any, database: str) -> None:
        self.model.create_snapshot(named(request, database), request.name, request.description, request.compaction_protection_seconds)

    @rpc(common_pb2.Status, _has_snapshots)
    def DropSnapshot(self, request: Any, database: str) -> None:
        self.model.drop_snapshot(named(request, database), request.name)

    @rpc(milvus_pb2.ListSnapshotsResponse, _has_snapshots)
    def ListSnapshots(self, request: Any, database: str) -> Any:
        return milvus_pb2.ListSnapshotsResponse(snapshots=[made.name for made in self.model.snapshots_of(named(request, database))])

    @rpc(milvus_pb2.DescribeSnapshotResponse, _has_snapshots)
    def DescribeSnapshot(self, request: Any, database: str) -> Any:
        name = named(request, database)
        made = self.model.snapshot(name, request.name)
        return milvus_pb2.DescribeSnapshotResponse(
            name=made.name,
            description=made.description,
            collection_name=request.collection_name,
            partition_names=[partition.name for partition in self.model.collection(name).partitions],
            create_ts=made.created,
            s3_location=self.model.snapshot_location(name, request.name),
        )

    @rpc(milvus_pb2.ExportSnapshotResponse, _has_snapshots)
    def ExportSnapshot(self, request: Any, database: str) -> Any:
        job = self.model.export_snapshot(named(request, database), request.name, request.target_s3_path, request.external_spec)
        return milvus_pb2.ExportSnapshotResponse(job_id=job.id)

    @rpc(milvus_pb2.GetExportSnapshotStateResponse, _exports)
    def GetExportSnapshotState(self, request: Any, database: str) -> Any:
        job, state = self.model.snapshot_job(self.model.exports, request.job_id)
        done = state == COMPLETED
        info = milvus_pb2.ExportSnapshotInfo(
            job_id=job.id,
            snapshot_name=job.snapshot,
            db_name=job.collection[0],
            collection_name=job.collection[1],
            state=state,
            progress=100 if done else 50,
            reason=job.reason,
            total_files=job.files,
            copied_files=job.files if done else job.files // 2,
            snapshot_metadata_uri=job.uri if done else "",
            total_bytes=job.size if done else 0,
        )
        return milvus_pb2.GetExportSnapshotStateResponse(info=info)

    @rpc(milvus_pb2.RestoreExternalSnapshotResponse, _has_snapshots)
    def RestoreExternalSnapshot(self, request: Any, database: str) -> Any:
        name = (database, request.target_collection_name)
        job = self.model.restore_external(name, request.snapshot_metadata_uri, request.external_spec)
        return milvus_pb2.RestoreExternalSnapshotResponse(job_id=job.id)

    @rpc(milvus_pb2.GetRestoreSnapshotStateResponse, _has_snapshots)
    def GetRestoreSnapshotState(self, request: Any, database: str) -> Any:
        job, state = self.model.snapshot_job(self.model.restores, request.job_id)
        info = milvus_pb2.RestoreSnapshotInfo(
            job_id=job.id,
            snapshot_name=job.snapshot,
            db_name=job.collection[0],
            collection_name=job.collection[1],
            state=state,
            progress=100 if state == COMPLETED else 50,
            reason=job.reason,
        )
        return milvus_pb2.GetRestoreSnapshotStateResponse(info=info)
