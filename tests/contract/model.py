"""A Milvus in memory, with its files in a bucket; :mod:`.servers` puts it behind gRPC and REST."""

from __future__ import annotations

from .rbac import Rbac
from .snapshots import Snapshots


class Model(Snapshots, Rbac):
    """One Milvus of one version.

    Tests write with :meth:`insert`, :meth:`delete`, :meth:`upsert` and :meth:`flush`, look with :meth:`rows` and :meth:`copies`, and change
    what happens to import jobs with :attr:`fates`.
    """
