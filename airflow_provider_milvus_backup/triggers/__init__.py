"""Airflow triggers of the Milvus backup provider."""
