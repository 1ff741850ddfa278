"""
What Airflow reads about this provider, and the one table of the ``milvus`` connection form.

Airflow loads this module while its own configuration is still starting up, so it imports nothing.
"""

PACKAGE_NAME = "airflow-provider-milvus-backup"  # the canonical name: anything else stops every `airflow` command
CONNECTION_TYPE = "milvus"
HOOK_NAME = "Milvus"
HOOK_CLASS_NAME = "airflow_provider_milvus_backup.hooks.milvus_backup.MilvusBackupHook"
INTEGRATION_NAME = "Milvus Backup"

# `extra` stays visible: it is where Airflow 2.11 shows keys that the form has no field for.
HIDDEN_FIELDS: "tuple[str, ...]" = ()

RELABELING = {
    "login": "User",
    "password": "Password or API key",
    "schema": "Database",
}

PLACEHOLDERS = {
    "host": "milvus.example.com",
    "port": "19530",
    "login": "root, or empty with an API key",
    "schema": "default",
    "bucket_name": "a-bucket",
    "root_path": "files",
}

# Fields kept in the connection's extra: key, kind ("string", "password" or "boolean"), label, description.
# None has a default: a form saves its defaults, and a value nobody chose must not win over backup.yaml.
EXTRA_FIELDS: "tuple[tuple[str, str, str, str], ...]" = (
    ("secure", "boolean", "Use TLS", "Talk to Milvus over an encrypted connection and check its certificate."),
    (
        "ca_cert",
        "string",
        "CA certificate",
        "Path, on workers and triggerers, of the PEM file of the authority that signed Milvus's certificate.",
    ),
    (
        "client_cert",
        "string",
        "Client certificate",
        "Path of the PEM file of the certificate that Milvus asks of its clients, with mutual TLS only.",
    ),
    (
        "client_key",
        "string",
        "Client key",
        "Path of the PEM file of the private key that belongs to the client certificate.",
    ),
    (
        "server_name",
        "string",
        "Server name",
        "Name to expect in Milvus's certificate when it is not the host above.",
    ),
    ("token", "password", "Token", "Token or API key that is used instead of the user and the password."),
    (
        "rest_endpoint",
        "string",
        "REST endpoint",
        "URL of Milvus's REST API, such as http://milvus.example.com:19530; empty means the host and port above.",
    ),
    (
        "management_endpoint",
        "string",
        "Management endpoint",
        "URL of Milvus's management port, such as http://milvus.example.com:9091, to pause its garbage collection.",
    ),
    (
        "bucket_name",
        "string",
        "Milvus bucket",
        "Bucket in which Milvus itself keeps its data (minio.bucketName in milvus.yaml); empty means a-bucket.",
    ),
    (
        "root_path",
        "string",
        "Milvus root path",
        "Path inside that bucket under which Milvus keeps its data (minio.rootPath in milvus.yaml); empty means files.",
    ),
    (
        "aws_conn_id",
        "string",
        "Storage connection",
        "ID of the Airflow connection of type aws that opens Milvus's bucket.",
    ),
)


def get_provider_info() -> "dict[str, object]":
    """Return the provider's metadata, as the ``apache_airflow_provider`` entry point promises."""
    package = "airflow_provider_milvus_backup"
    return {
        "package-name": PACKAGE_NAME,
        "name": "Milvus Backup",
        "description": "Back up and restore `Milvus <https://milvus.io/>`__ collections natively, in the format of milvus-backup.",
        "integrations": [
            {
                "integration-name": INTEGRATION_NAME,
                "external-doc-url": "https://milvus.io/docs/milvus_backup_overview.md",
                "tags": ["service"],
            }
        ],
        "operators": [
            _modules(*(f"{package}.operators.{verb}" for verb in ("backup", "restore", "delete", "retention", "check", "verify", "drill")))
        ],
        "sensors": [_modules(f"{package}.sensors.imports", f"{package}.sensors.freshness")],
        "hooks": [_modules(f"{package}.hooks.milvus_backup")],
        "triggers": [_modules(f"{package}.triggers.imports", f"{package}.triggers.freshness")],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": HOOK_CLASS_NAME,
                "hook-name": HOOK_NAME,
                # Read by Airflow 3.2 and later; the hook's methods say the same to older ones (connection_form.py).
                "ui-field-behaviour": {
                    "hidden-fields": list(HIDDEN_FIELDS),
                    "relabeling": dict(RELABELING),
                    "placeholders": dict(PLACEHOLDERS),
                },
                "conn-fields": {
                    key: {"label": label, "description": description, "schema": _schema(kind)}
                    for key, kind, label, description in EXTRA_FIELDS
                },
            }
        ],
    }


def _modules(*python_modules: str) -> "dict[str, object]":
    return {"integration-name": INTEGRATION_NAME, "python-modules": list(python_modules)}


def _schema(kind: str) -> "dict[str, object]":
    # "null" is what makes a field optional in the form.
    if kind == "password":
        return {"type": ["string", "null"], "format": "password"}
    return {"type": [kind, "null"]}
