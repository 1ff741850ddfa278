"""A door in front of the real Milvus 2.3.5 behind which it looks like a newer release: REST v2 on top of what 2.3.5 can do."""
