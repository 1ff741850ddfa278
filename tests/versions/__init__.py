"""Backup and restore on every version of Milvus: contract servers that answer as the version would, and a real S3."""
