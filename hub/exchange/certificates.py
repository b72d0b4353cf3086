"""TLS certificates that hubs know each other by: made by each for itself, pinned by the others, no authority between.

Whoever may be spoken with is decided by the certificate's fingerprint (SHA-256 of its DER) alone.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LASTS = dt.timedelta(days=3650)  # its pin ends sooner, whenever the hub says so
EARLIER = dt.timedelta(days=1)  # of a clock that is behind
SMALLEST_RSA = 2048


@dataclass(frozen=True)
class Made:
    """``private``, ``pem``: PEM; ``fingerprint``: SHA-256 of the DER in hex."""

    private: str
    pem: str
    fingerprint: str


def make(name: str, now: dt.datetime) -> Made:
    """A certificate of the hub ``name`` for both ends of a connection, signed with its own key (ECDSA, P-256)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return Made(private, pem, fingerprint(pem))


def fingerprint(pem: str) -> str:
    """ValueError when ``pem`` is not exactly one certificate that may be pinned: no authority's, its key strong enough."""
    found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    if len(found) != 1 or pem.count("-----BEGIN") != 1:
        raise ValueError("not one certificate")
    [certificate] = found
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError("a certificate that others could be made with")
    except x509.ExtensionNotFound:
        pass
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() | Ed25519PublicKey():
            pass
        case rsa.RSAPublicKey() as key if key.key_size >= SMALLEST_RSA:
            pass
        case _:
            raise ValueError("a key of a kind or size that is not used")
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
