"""The operator's authority and serving certificate, in a Secret that all replicas share."""

import asyncio
import base64
import ssl
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tunesmith.manifests.names import MANAGED_BY_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.operator_certificate import Material, renew

from .client import Client
from .errors import Conflict

_FIELDS = {"ca.crt": "bundle", "ca.key": "authority_key", "tls.crt": "certificate", "tls.key": "key"}
_ATTEMPTS = 10


async def ensure_material(
    client: Client, namespace: str, name: str, hosts: tuple[str, ...], now: Callable[[], datetime]
) -> Material:
    """The current material: read from the Secret, made or renewed where needed.

    Replicas may race: the first one to write wins, and the others read what it wrote.

    Raises:
        ApiError: the Secret can be neither read nor written.
    """
    for _ in range(_ATTEMPTS):
        secret = await client.get("v1", "Secret", namespace, name)
        before = _decode(secret) if secret else None
        material = await asyncio.to_thread(renew, before, hosts, now())
        if secret is not None and material == before:
            return material
        try:
            if await _write(client, secret, namespace, name, material):
                return material
        except Conflict:
            continue
    raise Conflict(f"the Secret {namespace}/{name} changed at each of {_ATTEMPTS} tries to write it")


async def _write(client: Client, before: Body | None, namespace: str, name: str, material: Material) -> bool:
    """Write the material; False when another replica has created the Secret."""
    data = {
        key: base64.b64encode(getattr(material, field).encode()).decode() for key, field in _FIELDS.items()
    }
    if before is not None:
        await client.replace({**before, "data": {**before.get("data", {}), **data}})
        return True
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {MANAGED_BY_LABEL: "tunesmith"},
        },
        "type": "Opaque",
        "data": data,
    }
    return await client.create(manifest) is not None


def _decode(secret: Body) -> Material | None:
    data = secret.get("data", {})
    if not _FIELDS.keys() <= data.keys():
        return None
    return Material(**{field: base64.b64decode(data[key]).decode() for key, field in _FIELDS.items()})


def load_into(context: ssl.SSLContext, material: Material) -> None:
    """Serve this certificate on new connections; open ones stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serving.pem"
        path.touch(mode=0o600)
        path.write_text(material.certificate + material.key)
        context.load_cert_chain(path)
