"""Tests on a real Milvus and a real S3."""

import os

# A server that is started while gRPC's threads run is forked off them, and gRPC's own fork handlers abort one such child in 25.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
