"""Airflow hooks of the Milvus backup provider."""
