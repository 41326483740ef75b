"""The API server through one pooled session."""

from collections.abc import Mapping
from typing import Any, Self

Body = dict[str, Any]


class Client:
    """Calls to the API server. All raise ``errors.ApiError``: Retryable, Conflict, Refused or Gone.

    ``namespace`` is None for cluster-scoped kinds, and in ``list`` for all namespaces that the operator watches.
    """

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *exception: object) -> None:
        raise NotImplementedError

    async def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object; None when it is not there."""
        raise NotImplementedError

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Body]:
        """All objects that match, page by page; each with ``apiVersion`` and ``kind``."""
        raise NotImplementedError

    async def create(self, manifest: Mapping[str, Any]) -> Body | None:
        """Create the object. None when one of that name exists already: it is left as it is."""
        raise NotImplementedError

    async def apply(self, manifest: Mapping[str, Any]) -> Body:
        """Server-side apply as field manager ``tunesmith``, taking over fields that others hold."""
        raise NotImplementedError

    async def patch(
        self, api_version: str, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> Body | None:
        """JSON merge patch; None when the object is not there."""
        raise NotImplementedError

    async def replace(self, manifest: Mapping[str, Any]) -> Body:
        """Replace the object as it was read (``metadata.resourceVersion``); Conflict when it changed since."""
        raise NotImplementedError

    async def delete(
        self, api_version: str, kind: str, namespace: str | None, name: str, uid: str
    ) -> None:
        """Delete the object of this UID, its dependents in the background; one that is gone counts as done."""
        raise NotImplementedError

    async def replace_status(self, body: Mapping[str, Any], status: Mapping[str, Any]) -> Body:
        """Replace the whole status of the object as it was read; Conflict when it changed since."""
        raise NotImplementedError
