"""Certificate authority and serving certificate of the operator; the time is an argument."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
SERVING_DAYS = 365
#: Renewed when less than this is left.
AUTHORITY_MARGIN = timedelta(days=SERVING_DAYS + 30)
SERVING_MARGIN = timedelta(days=90)
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Material:
    """PEM texts. ``bundle`` holds every authority that pods are to trust: the newest one signs, and is the first."""

    bundle: str
    authority_key: str
    certificate: str
    key: str


def renew(before: Material | None, hosts: tuple[str, ...], now: datetime) -> Material:
    """Certificates to use from now on: ``before`` unless it expires soon or is for other hosts."""
    if before is not None and _is_current(before, hosts, now):
        return before
    if before is None or _time_left(before.bundle, now) < AUTHORITY_MARGIN:
        authority, authority_key = _make_authority(now)
        earlier = x509.load_pem_x509_certificates(before.bundle.encode()) if before else []
        still_valid = [certificate for certificate in earlier if certificate.not_valid_after_utc > now]
        bundle = authority + "".join(map(_pem, still_valid))
    else:
        authority, authority_key, bundle = before.bundle, before.authority_key, before.bundle
    certificate, key = _make_serving(authority, authority_key, hosts, now)
    return Material(bundle, authority_key, certificate, key)


def _is_current(material: Material, hosts: tuple[str, ...], now: datetime) -> bool:
    certificate = x509.load_pem_x509_certificate(material.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        set(names.get_values_for_type(x509.DNSName)) == set(hosts)
        and _time_left(material.certificate, now) >= SERVING_MARGIN
        and _time_left(material.bundle, now) >= AUTHORITY_MARGIN
    )


def _time_left(pem: str, now: datetime) -> timedelta:
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc - now


def _make_authority(now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Tunesmith authority {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _make_serving(
    authority_pem: str, authority_key_pem: str, hosts: tuple[str, ...], now: datetime
) -> tuple[str, str]:
    authority = x509.load_pem_x509_certificate(authority_pem.encode())
    signer = serialization.load_pem_private_key(authority_key_pem.encode(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not one of an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(name, authority.subject, key.public_key(), now, SERVING_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
