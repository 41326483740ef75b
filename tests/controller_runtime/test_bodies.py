"""Bodies in memory: of the managed fields only the writers of the annotation for actions are kept."""

import random
from typing import Any

import orjson
import pytest
from long_form import cases

from tunesmith.api.actions import ACTION_ANNOTATION
from tunesmith.controller_runtime.bodies import Bodies, key_of
from tunesmith.controller_runtime.mentions import Mentions, hashes_of, mentioned_in


def entry(manager: str, annotation: str | None = None) -> dict[str, Any]:
    annotations: dict[str, Any] = {f"f:{annotation}": {}} if annotation else {}
    fields = {"f:metadata": {"f:annotations": {".": {}, **annotations}}, "f:spec": {"f:adapters": {}}}
    return {"manager": manager, "operation": "Update", "time": "2030-01-01T00:00:00Z", "fieldsV1": fields}


def test_only_the_writers_of_the_annotation_are_kept() -> None:
    fields = [
        entry("helm"),
        {"manager": "tunesmith", "subresource": "status"},
        entry("argocd", ACTION_ANNOTATION),
    ]
    metadata = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "managedFields": fields}
    body = {"kind": "AdapterDeployment", "metadata": metadata}
    bodies = Bodies()
    bodies.put(body)
    stored = bodies.get(key_of(body))
    assert stored is not None
    kept: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{ACTION_ANNOTATION}": {}}}}
    assert stored["metadata"]["managedFields"] == [
        {"manager": "argocd", "time": "2030-01-01T00:00:00Z", "fieldsV1": kept}
    ]
    metadata = metadata | {"resourceVersion": "2", "managedFields": fields[:2]}
    bodies.put({"kind": "AdapterDeployment", "metadata": metadata})
    stored = bodies.get(key_of(body))
    assert stored is not None
    assert "managedFields" not in stored["metadata"]


def ended_job(name: str, digest: str, uri: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": "1"}
    artifact = {"digest": digest, "uri": "oci://registry/x"}
    return {
        "kind": "FineTuneJob",
        "metadata": metadata,
        "spec": {"baseModel": {"uri": uri}},
        "status": {"phase": "Succeeded", "artifact": artifact},
    }


def test_ended_resources_are_packed_and_found_by_what_they_mention() -> None:
    digests = [f"sha256:{letter * 64}" for letter in "ab"]
    jobs = [ended_job(digest[-1], digest, f"pvc://models/{digest[-1]}") for digest in digests]
    bodies = Bodies(lambda body: "status" in body)
    for job in jobs:
        bodies.put(job)
    bodies.put(
        live := {"kind": "FineTuneJob", "metadata": {**jobs[0]["metadata"], "name": "c", "uid": "live"}}
    )
    assert bodies.get(key_of(jobs[0])) == jobs[0]
    assert bodies.get(key_of(jobs[0])) is not bodies.get(key_of(jobs[0]))
    assert [*bodies.mentioning("FineTuneJob", "n", {digests[1]})] == [jobs[1], live]
    assert [*bodies.mentioning("FineTuneJob", "n", {"pvc://models/a"})] == [jobs[0], live]
    assert [*bodies.mentioning("FineTuneJob", "n", {"oci://registry/x"})] == [*jobs, live]
    assert [*bodies.mentioning("FineTuneJob", "n", set())] == [live]
    assert [*bodies.mentioning("FineTuneJob", "elsewhere", {digests[1]})] == []
    assert bodies.of_kind("FineTuneJob") == (*jobs, live)
    assert set(bodies.uids("FineTuneJob", "n")) == {"uid-a", "uid-b", "live"}
    assert bodies.uids("FineTuneJob", "other") == {}
    newer = {**jobs[0], "metadata": {**jobs[0]["metadata"], "resourceVersion": "2"}}
    assert not bodies.put(jobs[0])
    assert bodies.put(newer)
    assert bodies.get(key_of(newer)) == newer
    assert bodies.drop(newer)
    assert bodies.get(key_of(newer)) is None
    assert [*bodies.mentioning("FineTuneJob", "n", {digests[0]})] == [live]


def test_a_digest_within_a_record_or_a_uri_is_mentioned() -> None:
    digest = f"sha256:{'c' * 64}"
    for text in (f'{{"digest":"{digest}"}}', f"oci://registry/x@{digest}"):
        mentioned = mentioned_in({"data": {"record.json": text}})
        assert hashes_of({digest}) <= mentioned
        assert not hashes_of({f"sha256:{'d' * 64}"}) & mentioned


URIS = (
    "pvc://models/tiny", "hf://org/model@main", "s3://bucket/a%20b?x=1", "https://host:443/x", "oci://r/x:1",
    "configmap://rows/train.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_is_mentioned_wherever_it_stands(uri: str) -> None:
    within_json = orjson.dumps({"uri": uri, "next": 1}).decode()
    for text in (
        uri,
        f"from {uri} to",
        within_json,
        f"A{uri}",
        f"x-{uri}",
        orjson.dumps(within_json).decode(),
    ):
        assert hashes_of({uri}) <= mentioned_in({"data": {"text": text}}), text


def test_mentions_follow_a_simple_model() -> None:
    """Random changes beside a dict that is searched as a whole."""
    for seed in range(cases(50, 2000)):
        choose, mentions, model = random.Random(seed), Mentions[str](), dict[str, set[int]]()
        for _ in range(60):
            holder, hashes = choose.choice("abcdef"), choose.sample(range(8), choose.randrange(4))
            if choose.random() < 0.3:
                mentions.drop(holder)
                model.pop(holder, None)
            else:
                mentions.add(holder, hashes)
                model.setdefault(holder, set()).update(hashes)
            wanted = choose.sample(range(8), 2)
            found = [*mentions.find(wanted)]
            assert sorted(found) == sorted(name for name, held in model.items() if held & {*wanted})
            assert all(mentions.of(name) == model.get(name, frozenset()) for name in "abcdef")
        for holder in "abcdef":
            mentions.drop(holder)
        assert not mentions._holders, "nothing is left of those that are gone"
