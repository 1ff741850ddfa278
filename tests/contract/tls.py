"""Certificates of a contract server."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


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


@dataclass(frozen=True, slots=True)
class Authority:
    """The files of an authority nobody knows, and of a server and a client that it has signed."""

    ca: Path
    server: Certificates
    client_certificate: Path
    client_key: Path


def authority(directory: Path, *, mutual: bool = False) -> Authority:
    """Write certificates for loopback below a directory.

    :param mutual: whether the server lets in only clients with a certificate of the same authority
    """
    ca = _signed("authority", None)
    files = {name: _write(directory, name, _signed(name, ca)) for name in ("server", "client")}
    ca_file = _write(directory, "ca", ca)[0]
    return Authority(ca_file, Certificates(*files["server"], ca_file if mutual else None), *files["client"])


def _signed(name: str, by: tuple[Any, Any] | None) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(address, critical=False)
        .sign(by[1] if by else key, hashes.SHA256())
    )
    return certificate, key


def _write(directory: Path, name: str, signed: tuple[Any, Any]) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    certificate.write_bytes(signed[0].public_bytes(serialization.Encoding.PEM))
    pem = signed[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(pem)
    return certificate, key
