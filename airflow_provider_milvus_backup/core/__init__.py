"""The backup engine. Nothing here imports airflow, so it serves any Python program."""
