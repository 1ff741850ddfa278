"""Back up and restore Milvus collections from Apache Airflow."""

__version__ = "0.1.0"
