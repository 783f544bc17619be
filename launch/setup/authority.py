"""An authority of a run's own, and certificates that it signs: P-256 keys, PEM, as gRPC and Kafka read them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from headrace.common.errors import UsageError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise UsageError("setup files needs the package cryptography: pip install 'headrace[setup]'") from error

AUTHORITY_DAYS, CERTIFICATE_DAYS = 3650, 365
#: A certificate that ends sooner is made anew.
RENEW_DAYS = 30
#: Clocks of other machines may be behind ours.
_SLACK = timedelta(minutes=5)


class Authority:
    """Signs certificates. ``certificate`` and ``key`` are its own, PEM."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Raises ``ValueError`` for what is no certificate or no key."""
        self.certificate, self.key = certificate, key
        self._certificate = x509.load_pem_x509_certificate(certificate)
        loaded = serialization.load_pem_private_key(key, password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != self._certificate.public_key():
            raise ValueError("the key is not that of the authority's certificate")
        self._key = loaded

    @classmethod
    def new(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        own = _builder(_named(name), _named(name), key.public_key(), AUTHORITY_DAYS)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = (
            own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(made.public_bytes(serialization.Encoding.PEM), _pem(key))

    def certify(self, name: str, *, hosts: tuple[str, ...] = (), uri: str = "") -> tuple[bytes, bytes]:
        """Certificate and key of somebody new: a server known under ``hosts``, or a client whose role is ``uri``."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [_host(host) for host in hosts]
        alternatives += [x509.UniformResourceIdentifier(uri)] if uri else []
        what = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        made = (
            _builder(_named(name), self._certificate.subject, key.public_key(), CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage([what]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM), _pem(key)

    def still_good(self, certificate: bytes, *, hosts: tuple[str, ...] = (), uri: str = "") -> bool:
        """Whether a certificate is ours, names just these, and lasts for :data:`RENEW_DAYS` yet."""
        try:
            held = x509.load_pem_x509_certificate(certificate)
            held.verify_directly_issued_by(self._certificate)
            names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # whatever is wrong with it, another one is needed
            return False
        wanted = {_host(host) for host in hosts} | ({x509.UniformResourceIdentifier(uri)} if uri else set())
        return set(names) == wanted and held.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)

    def lasts(self) -> bool:
        """Whether the authority's own certificate does."""
        return self._certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 without a password, the form that Kafka's PEM keystores want."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
