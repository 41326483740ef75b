"""Base classes of all documents, and their canonical JSON."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256:<64 hex digits>")]


class Document(BaseModel):
    """Frozen document: camelCase in JSON, snake_case in Python.

    Unknown keys are refused: a run must never ignore a part of its configuration.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def to_json(self) -> str:
        """Compact JSON without null members, keys in a fixed order."""
        return canonical_json(self.to_dict()).decode()

    def to_short_dict(self) -> dict[str, Any]:
        """Plain JSON types, camelCase keys, without members that have their default value.

        A reader of an earlier release knows these members or does not need them; their defaults never change.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, camelCase keys, null members left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Report(Document):
    """Document between processes of different releases: keys unknown to the reader are left out, not refused."""

    model_config = ConfigDict(extra="ignore")


def canonical_json(value: Any) -> bytes:
    """Canonical JSON of a value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_digest(data: bytes) -> str:
    """``sha256:<hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short_digest(digest: str) -> str:
    """First twelve hex digits of a digest, as in messages and served names."""
    return digest.removeprefix("sha256:")[:12]
