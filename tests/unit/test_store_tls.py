"""Object storage behind TLS: whose certificate is trusted is what `verify` says."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3.session
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_milvus_backup.core.errors import ConfigError, StorageError
from airflow_provider_milvus_backup.core.settings import S3Location
from airflow_provider_milvus_backup.core.store import ObjectStore, StoredObject

LISTING = (
    b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix>x/</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>'
    b"<IsTruncated>false</IsTruncated><Contents><Key>x/1</Key><LastModified>2026-11-22T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    b"<Size>5</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
)


class Listing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(LISTING)))
        self.end_headers()
        self.wfile.write(LISTING)

    def log_message(self, *_: object) -> None:
        pass


def certificate(
    name: str, signed_by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by[0].subject if signed_by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(signed_by[1] if signed_by else key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An S3 that only lists, with a certificate of an authority that nobody knows; its URL and the authority's file."""
    directory = tmp_path_factory.mktemp("tls")
    authority = certificate("authority", None)
    own, key = certificate("server", authority)
    (directory / "ca.pem").write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.pem").write_bytes(pem + own.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{http.server_port}", directory / "ca.pem"
        http.shutdown()
        thread.join()


def store(url: str, verify: bool | str) -> ObjectStore:
    return ObjectStore(S3Location("b", "", lambda: boto3.session.Session("key", "secret"), url, "us-east-1", verify))


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(server: tuple[str, Path]) -> None:
    url, authority = server
    assert list(store(url, str(authority)).objects("x")) == [StoredObject("x/1", 5, "e")]


def test_verification_can_be_turned_off(server: tuple[str, Path]) -> None:
    assert [item.key for item in store(server[0], verify=False).objects("x")] == ["x/1"]


def test_an_unknown_authority_is_not_trusted(server: tuple[str, Path]) -> None:
    with pytest.raises(StorageError, match="cannot list 'x' in s3://b"):
        list(store(server[0], verify=True).objects("x"))


def test_a_missing_authority_file_is_named(server: tuple[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem' cannot be read: No such file"):
        list(store(server[0], "/nowhere.pem").objects("x"))
