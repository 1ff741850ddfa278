"""Databases: what is backed up of them, and which of their properties a restore gives to a database that it creates."""

from __future__ import annotations

import re
from collections.abc import Collection

from .errors import UnsupportedFormat, UnsupportedServer
from .meta import Database
from .server import MilvusServer

#: Properties that are not replayed, and why. The keys are those of ``pkg/common/common.go`` and ``internal/util/hookutil/cipher.go``.
LEFT_OUT = {
    r"cipher\..*": "it belongs to the encryption of the cluster that was backed up; set up encryption on this one by itself",
    r"replicate\..*": "it would make the database a replica that accepts no writes but those of its source",
    r"database\.resource_groups": "it names resource groups of the cluster that was backed up; set it again when this one has them",
    r"database\.force\.deny\..*": "it would refuse the restore itself; set it again afterwards",
}


def describe_database(server: MilvusServer, name: str) -> Database:
    """Return a database with its id and all its properties; before Milvus 2.4.3 servers know neither."""
    try:
        answer = server.describe_database(name)
    except UnsupportedServer:
        return Database(name)
    return Database(name, answer.dbID, [(pair.key, pair.value) for pair in answer.properties])


def describe_databases(server: MilvusServer, names: Collection[str]) -> list[Database]:
    """Return the databases of these names, as far as they exist.

    :raises UnsupportedFormat: one is encrypted
    """
    found = [describe_database(server, name) for name in server.databases() if name in names]
    if encrypted := [database.name for database in found if is_encrypted(database)]:
        raise UnsupportedFormat(
            f"database {encrypted[0]!r} is encrypted, and a backup without its key could not be restored; back up the other databases, or "
            "use milvus-backup for this one"
        )
    return found


def is_encrypted(database: Database) -> bool:
    """Return whether its files can only be read with a key that the backup does not have."""
    return any(key == "cipher.ezID" and value for key, value in database.properties)


def to_create(database: Database) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the properties to create a database with, and one sentence for every property that is left out.

    A backup keeps all properties. Left out are those that the source's server manages or that mean nothing on another cluster:

    - ``cipher.*``: ``cipher.ezID`` is appended by the server itself, ``cipher.key`` names a root key of the source's key management, and
      a server without a cipher plugin refuses ``cipher.enabled`` (``hookutil.TidyDBCipherProperties``);
    - ``replicate.*``: a database with ``replicate.id`` takes replicated messages only, so nothing could be restored into it;
    - ``database.resource_groups``: collections could not be loaded where the groups do not exist;
    - ``database.force.deny.*``: the quota of the database would refuse the DDL and the imports of the restore.
    """
    properties, lines = [], []
    for key, value in database.properties:
        reason = next((why for pattern, why in LEFT_OUT.items() if re.fullmatch(pattern, key)), None)
        if reason is None:
            properties.append((key, value))
        else:
            lines.append(f"property {key!r} of database {database.name!r} is not restored: {reason}")
    return properties, lines
