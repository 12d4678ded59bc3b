"""An authority of a deployment's own, the server's certificate, and a key for each site.

The server's certificate is signed by the authority, whose own certificate every site gets; a site's key is P-384, as
Flower wants them, and never leaves its kit. Needs the extra `sites`. Imports no torch.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["fingerprint_of", "make_authority", "make_server_certificate", "make_site_key"]

_YEARS = 3
_DAY = timedelta(days=1)


def make_authority(certificate: Path, key: Path) -> None:
    """Make the authority of a deployment: a key that nobody but the server's owner reads, and its certificate."""
    secret = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedllm-commons deployment")])
    built = (
        _builder(name, name, secret.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(secret, hashes.SHA384())
    )
    _write_secret(key, secret)
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))


def make_server_certificate(host: str, authority: tuple[Path, Path], certificate: Path, key: Path) -> None:
    """Make the server's certificate for the name by which sites reach it, and for this machine.

    Args:
        host: name or address.
        authority: certificate and key of `make_authority`.
        certificate: is written.
        key: is written, for its owner alone.
    """
    issuer = x509.load_pem_x509_certificate(authority[0].read_bytes())
    signer = serialization.load_pem_private_key(authority[1].read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    secret = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    hosts = list(dict.fromkeys([host, "localhost", "127.0.0.1", "::1"]))
    built = (
        _builder(name, issuer.subject, secret.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(signer, hashes.SHA384())
    )
    _write_secret(key, secret)
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))


def make_site_key(private: Path, public: Path) -> None:
    """Make the key pair by which a site is known."""
    secret = ec.generate_private_key(ec.SECP384R1())
    _write_secret(private, secret, form=serialization.PrivateFormat.OpenSSH)
    text = secret.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public.write_bytes(text + b"\n")


def fingerprint_of(public: bytes) -> str:
    """Return a public key's fingerprint: the SHA-256 of its point, whatever form the key is written in.

    Args:
        public: a key in OpenSSH's form, PEM or DER.

    Raises:
        ValueError: if it is none of these.
    """
    text = public.strip()
    if text.startswith(b"ecdsa-"):
        key = serialization.load_ssh_public_key(text)
    elif text.startswith(b"-----"):
        key = serialization.load_pem_public_key(text)
    else:
        key = serialization.load_der_public_key(public)
    digest = hashes.Hash(hashes.SHA256())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest.update(key.public_bytes(serialization.Encoding.DER, form))
    return digest.finalize().hex()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _YEARS * 365 * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> None:
    """Write a private key that its owner alone can read; a key that is there is never replaced."""
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
