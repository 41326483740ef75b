"""The operator's certificates: trusted by the bundle, renewed in time, the same for racing replicas."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from api_server.fake_api import FakeApi
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.tls import ensure_material, load_into
from tunesmith.manifests.operator_certificate import AUTHORITY_DAYS, SERVING_DAYS, Material, renew

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOSTS = ("tunesmith.system.svc", "tunesmith.system.svc.cluster.local")


def assert_trusted(bundle: str, material: Material, at: datetime) -> None:
    store = Store(x509.load_pem_x509_certificates(bundle.encode()))
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(HOSTS[0]))
    verifier.verify(x509.load_pem_x509_certificate(material.certificate.encode()), [])


def test_made_once_and_kept_while_it_is_good() -> None:
    material = renew(None, HOSTS, NOW)
    assert_trusted(material.bundle, material, NOW)
    assert renew(material, HOSTS, NOW + timedelta(days=SERVING_DAYS - 100)) is material


@pytest.mark.parametrize(
    ("hosts", "days"), [(HOSTS, SERVING_DAYS - 80), ((*HOSTS, "more.svc"), 0)], ids=["old", "other hosts"]
)
def test_a_new_certificate_is_signed_by_the_same_authority(hosts: tuple[str, ...], days: int) -> None:
    before, now = renew(None, HOSTS, NOW), NOW + timedelta(days=days)
    after = renew(before, hosts, now)
    assert after.certificate != before.certificate
    assert after.bundle == before.bundle
    assert_trusted(before.bundle, after, now)


def test_pods_trust_both_authorities_while_one_follows_the_other() -> None:
    before, now = renew(None, HOSTS, NOW), NOW + timedelta(days=AUTHORITY_DAYS - SERVING_DAYS)
    after = renew(before, HOSTS, now)
    assert after.bundle.endswith(before.bundle)
    assert len(x509.load_pem_x509_certificates(after.bundle.encode())) == 2
    assert_trusted(after.bundle, after, now)
    assert renew(after, HOSTS, now) is after


async def test_racing_replicas_agree() -> None:
    api = cast(Client, FakeApi())
    materials = await asyncio.gather(
        *(ensure_material(api, "system", "tls", HOSTS, lambda: NOW) for _ in range(4))
    )
    assert len(set(materials)) == 1
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_into(context, materials[0])
