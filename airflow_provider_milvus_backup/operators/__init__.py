"""Airflow operators of the Milvus backup provider."""
