"""Only a pod of the resource itself gets through, and reviews are not repeated for every call."""

from typing import Any

import pytest
from api_server.fake_api import FakeApi, FakeClock

from tunesmith.controller_runtime.tokens import (
    CACHE_SECONDS,
    REFUSED_SECONDS,
    Forbidden,
    PodIdentity,
    TokenReviewer,
    Unauthenticated,
)
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith_contract.layout import TOKEN_AUDIENCE

POD = PodIdentity("ns", "pod-0", "pod-uid")
EXTRA = {
    "authentication.kubernetes.io/pod-name": ["pod-0"],
    "authentication.kubernetes.io/pod-uid": ["pod-uid"],
}
USER = {"username": "system:serviceaccount:ns:default", "extra": EXTRA}
GOOD = {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": USER}


class Reviews(FakeApi):
    """Answers every TokenReview with the same status."""

    def __init__(self, status: dict[str, Any]) -> None:
        super().__init__()
        self.status = status
        self.reviewed: list[dict[str, Any]] = []

    async def create(self, manifest: Any) -> Any:
        self.reviewed.append(manifest["spec"])
        return {**manifest, "status": self.status}


def reviewer(api: Any, clock: FakeClock | None = None) -> TokenReviewer:
    return TokenReviewer(api, clock or FakeClock())


async def test_a_pod_is_known_by_its_token_for_some_seconds() -> None:
    api, clock = Reviews(GOOD), FakeClock()
    tokens = reviewer(api, clock)
    assert [await tokens.identify("secret") for _ in range(3)] == [POD] * 3
    assert api.reviewed == [{"token": "secret", "audiences": [TOKEN_AUDIENCE]}]
    assert "secret" not in repr(vars(tokens))
    clock.advance(CACHE_SECONDS)
    api.status = {"authenticated": False}
    with pytest.raises(Unauthenticated):
        await tokens.identify("secret")


async def test_a_refused_token_is_soon_reviewed_again() -> None:
    api, clock = Reviews({"authenticated": False}), FakeClock()
    tokens = reviewer(api, clock)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await tokens.identify("secret")
    assert len(api.reviewed) == 1
    api.status = GOOD
    clock.advance(REFUSED_SECONDS)
    assert await tokens.identify("secret") == POD


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "expired"},
        {**GOOD, "audiences": ["https://kubernetes.default.svc"]},
        {**GOOD, "user": {**USER, "username": "jane"}},
        {**GOOD, "user": {**USER, "extra": {}}},
    ],
    ids=["rejected", "another audience", "a person", "not of a pod"],
)
async def test_other_tokens_are_refused(status: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await reviewer(Reviews(status)).identify("secret")


def build_pod(uid: str, owner: str) -> dict[str, Any]:
    labels = {OWNER_UID_LABEL: owner}
    return {"kind": "Pod", "metadata": {"namespace": "ns", "name": "pod-0", "uid": uid, "labels": labels}}


async def test_the_pod_must_be_the_one_and_belong_to_the_resource() -> None:
    api = FakeApi()
    with pytest.raises(Forbidden, match="does not exist any more"):
        await reviewer(api).labels(POD, "owner")
    api.add(build_pod("pod-uid", "owner"))
    assert await reviewer(api).labels(POD, "owner") == {OWNER_UID_LABEL: "owner"}
    with pytest.raises(Forbidden, match="does not belong"):
        await reviewer(api).labels(POD, "another")
    api.add(build_pod("successor", "owner"))
    with pytest.raises(Forbidden, match="does not exist any more"):
        await reviewer(api).labels(POD, "owner")
