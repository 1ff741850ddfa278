"""Strict stand-ins for Milvus 2.4 to 3.0.

No newer server than 2.3.5 comes from pip, so what a newer one answers is written down here, from milvus-io/milvus's own source:
``profiles`` says how versions differ, ``model`` is what a Milvus holds in memory and in its bucket, ``servers`` puts it
behind gRPC and REST.
"""
