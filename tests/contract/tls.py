"""Certificates of a contract server."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a server's own certificate and key, and of the CA whose clients it lets in; without a CA it lets in everyone."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def grpc(self) -> Any:
        """Return credentials for a gRPC server."""
        ca = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())], ca, bool(ca))

    def context(self) -> ssl.SSLContext:
        """Return a context for everything else."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
