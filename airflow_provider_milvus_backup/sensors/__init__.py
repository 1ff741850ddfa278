"""Airflow sensors of the Milvus backup provider."""
