"""Observation of attempts that something is wrong with: refused pods, deleted Jobs, pods without a Job."""

from datetime import UTC, datetime
from typing import Any

from simulation.simulated_cluster import fine_tune_job

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.observe_finetunejob import observe_finetunejob
from tunesmith.cluster.reconciler import Reader
from tunesmith.manifests.names import child_metadata
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith_contract.stages import Stage


def creation_failure(name: str, job: str, at: str, **fields: Any) -> Body:
    """An event of the Job controller, as the newer API shows it."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "team"},
        "regarding": {"name": job},
        "reason": "FailedCreate",
        "note": f"note of {name}",
        "deprecatedLastTimestamp": at,
    } | fields


async def test_the_latest_refusal_of_a_pod_is_read_while_a_job_lacks_pods(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job())
    metadata = child_metadata(job, Stage.PREPARE, 1)
    started = {"startTime": "2020-01-01T00:00:00Z"}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"parallelism": 1}}
    api.index.put("batch/v1", "Job", api.add({**body, "status": started}))
    for event in (
        creation_failure("old", metadata["name"], "2020-01-01T00:01:00Z"),
        creation_failure("new", metadata["name"], "2020-01-01T00:02:00Z"),
        creation_failure("of another", "another", "2020-01-01T00:03:00Z"),
        creation_failure("other", metadata["name"], "2020-01-01T00:03:00Z", reason="SuccessfulCreate"),
    ):
        api.add(event)
    observed = await observe_finetunejob(reader, job)
    assert observed.related.creation_failures == {metadata["name"]: "note of new"}


async def test_no_event_is_read_for_a_job_that_waits_or_has_its_pods(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job())
    metadata = child_metadata(job, Stage.PREPARE, 1)
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"parallelism": 1}}
    just_started = {"startTime": datetime.now(UTC).isoformat()}
    api.index.put("batch/v1", "Job", api.add({**body, "status": just_started}))
    await observe_finetunejob(reader, job)
    api.index.put("batch/v1", "Job", api.add({**body, "status": {"startTime": "2020-01-01T00:00:00Z"}}))
    api.index.put(
        "v1", "Pod", api.add({"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "name": "pod"}})
    )
    await observe_finetunejob(reader, job)
    assert ("list", "Event") not in api.calls


async def test_a_job_that_seems_deleted_is_looked_for_before_its_attempt_is_given_up(
    api: Any, reader: Reader
) -> None:
    body = fine_tune_job() | {"status": {"attempts": 1}}
    job = FineTuneJob.parse(body)
    assert (await observe_finetunejob(reader, job)).children.lacks_job(1)
    assert ("list", "Job") in api.calls
    metadata = child_metadata(job, Stage.PREPARE, 1)
    api.add({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"parallelism": 1}})
    observed = await observe_finetunejob(reader, job)
    assert not observed.children.lacks_job(1)
    assert [child["metadata"]["name"] for child in observed.children.jobs] == [metadata["name"]]


async def test_pods_of_a_deleted_job_are_known_until_its_end_is_recorded(api: Any, reader: Reader) -> None:
    job = FineTuneJob.parse(fine_tune_job() | {"status": {"attempts": 1}})
    metadata = child_metadata(job, Stage.PREPARE, 1) | {"name": "pod", "ownerReferences": []}
    ended = {"name": "trainer", "state": {"terminated": {"exitCode": 15}}}
    pod = api.add(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"containerStatuses": [ended]}}
    )
    for event in ("ADDED", "DELETED"):
        api.index.handle_event("v1", "Pod", event, pod)
    for _ in range(2):
        observed = await observe_finetunejob(reader, job)
        assert [body["metadata"]["name"] for body in observed.children.pods] == ["pod"]
    record = AttemptRecord(
        stage=Stage.PREPARE,
        attempt=1,
        outcome=AttemptOutcome.DISRUPTED,
        reason="Disrupted",
        ended_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    api.index.put("v1", "ConfigMap", api.add(build_result_config_map(job, record)))
    assert (await observe_finetunejob(reader, job)).children.pods == ()
