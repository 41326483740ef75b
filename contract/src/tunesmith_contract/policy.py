"""Digest of an evaluation's policy and data."""

from collections.abc import Mapping

from .base import canonical_json, sha256_digest


def policy_digest(policy: str, data_digests: Mapping[str, str]) -> str:
    """Digest of the policy's canonical JSON together with the digest of each suite's data.

    Args:
        policy: canonical JSON of suites, gates and confidence, as the operator wrote it.
        data_digests: suite name to the sha256 digest of its items.
    """
    return sha256_digest(canonical_json({"policy": policy, "data": dict(data_digests)}))
