"""FineTuneJobs and EvalRuns on a control plane: made, watched, and their fake pods ended as a test says."""

from pathlib import Path
from typing import Any

from tunesmith.api import GROUP, VERSION
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.result_config_map import recorded_attempt
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.report import RunReport

Body = dict[str, Any]

PLURALS = {"FineTuneJob": "finetunejobs", "EvalRun": "evalruns"}
CHILDREN = ("apis/batch/v1/{}/jobs", "api/v1/{}/configmaps", "api/v1/{}/pods", "api/v1/{}/services")


class Runs:
    """A namespace with claims and rows for runs.

    Args:
        patience: seconds for which a pod is waited for.
    """

    def __init__(
        self,
        server: ControlPlane,
        folder: Path,
        claims: tuple[str, ...] = ("models", "artifacts", "data"),
        access_mode: str = "ReadWriteOnce",
        patience: float = 30,
    ) -> None:
        self.server = server
        self._patience = patience
        self.namespace = server.namespace("runs")
        for claim in claims:
            server.add_volume(self.namespace, claim, folder, "gpu-0", access_mode=access_mode)

    def create(self, body: Body, name: str, labels: dict[str, str] | None = None) -> Body:
        """Make the resource under this name."""
        wanted = {"apiVersion": body["apiVersion"], "kind": body["kind"], "spec": body["spec"]}
        metadata = {"name": name, "labels": labels or {}}
        return self.server.api.create(self._path(body["kind"]), wanted | {"metadata": metadata})

    def read(self, kind: str, name: str) -> Body:
        """The resource as it is."""
        return self.server.api.get(self._path(kind, name))

    def resources(self, kind: str) -> list[Body]:
        """All resources of a kind."""
        found: list[Body] = self.server.api.get(self._path(kind))["items"]
        return found

    def status(self, kind: str, name: str) -> Body:
        """The resource's status."""
        status: Body = self.read(kind, name).get("status", {})
        return status

    def wait(self, kind: str, name: str, phase: str, timeout: float = 40) -> Body:
        """The status once the resource is in this phase."""

        def reached() -> Body | None:
            status = self.status(kind, name)
            return status if status.get("phase") == phase else None

        try:
            return eventually(reached, timeout, what=f"{kind} {name} in phase {phase}")
        except TimeoutError as error:
            error.add_note(str(self.status(kind, name)))
            raise

    def wait_for_reason(self, kind: str, name: str, reason: str, timeout: float = 40) -> Body:
        """The condition Ready once it gives this reason."""

        def told() -> Body | None:
            ready = condition(self.status(kind, name), "Ready")
            return ready if ready.get("reason") == reason else None

        return eventually(told, timeout, what=f"{kind} {name} not ready because of {reason}")

    def wait_restored(self, kind: str, name: str, before: Body) -> None:
        """Return once the status is what it was before, but for what passes (``lasting``)."""

        def is_restored() -> bool:
            status = self.status(kind, name)
            return "conditions" in status and lasting(status) == before

        try:
            eventually(is_restored, 40, what=f"the former status of {kind} {name}")
        except TimeoutError as error:
            error.add_note(f"{self.status(kind, name)} instead of {before}")
            raise

    def finish(
        self,
        run: Body,
        stage: str,
        attempt: int,
        exit_code: int,
        report: RunReport | None = None,
        index: int = 0,
    ) -> None:
        """End a pod of an attempt."""
        pod = self.pod(run, stage, attempt, index)
        message = report.to_termination_message().decode() if report else ""
        self.server.finish_pod(self.namespace, pod["metadata"]["name"], exit_code, message)

    def pod(self, run: Body, stage: str, attempt: int, index: int = 0) -> Body:
        """A running pod of an attempt."""
        uid = run["metadata"]["uid"]
        place = f"batch.kubernetes.io/job-completion-index={index}"
        selector = (
            f"{OWNER_UID_LABEL}={uid},tunesmith.dev/stage={stage},tunesmith.dev/attempt={attempt},{place}"
        )
        return self.server.wait_for_pod(self.namespace, selector, timeout=self._patience)

    def patch(self, kind: str, name: str, change: Body, subresource: str = "") -> Body:
        """Merge a change into the resource."""
        return self.server.api.merge(self._path(kind, name) + subresource, change)

    def wipe_status(self, kind: str, name: str) -> None:
        """As if it had never been written."""
        self.patch(kind, name, {"status": None}, "/status")

    def delete(self, kind: str, name: str) -> None:
        """Delete the resource as kubectl does."""
        self.server.api.delete(self._path(kind, name))

    def read_child(self, path: str) -> Body:
        """An object of the namespace, by its path below it: ``batch/v1`` ones as ``jobs/name``."""
        group = "apis/batch/v1" if path.startswith("jobs/") else "api/v1"
        return self.server.api.get(f"/{group}/namespaces/{self.namespace}/{path}")

    def children(self, run: Body) -> list[str]:
        """Kind and name of all that the resource and its Jobs own."""
        selector = f"labelSelector={OWNER_UID_LABEL}%3D{run['metadata']['uid']}"
        found = []
        for path in CHILDREN:
            listed = self.server.api.get(f"/{path.format(f'namespaces/{self.namespace}')}?{selector}")[
                "items"
            ]
            found += [f"{path.rsplit('/', 1)[-1]}/{item['metadata']['name']}" for item in listed]
        return found

    def recorded_attempts(self, run: Body) -> list[str]:
        """Stage and attempt of each record of the resource, as ``train-1``."""
        selector = f"labelSelector={OWNER_UID_LABEL}%3D{run['metadata']['uid']}"
        maps = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps?{selector}")["items"]
        attempts = filter(None, (recorded_attempt(body) for body in maps))
        return [f"{stage}-{attempt}" for stage, attempt in attempts]

    def wait_for_no_children(self, name: str, run: Body, timeout: float) -> None:
        """Return once nothing is left of what the resource and its Jobs owned."""
        eventually(lambda: not self.children(run), timeout, what=f"the end of {name}'s children")

    def wait_for_no_pods(self, run: Body) -> None:
        """Return once no pod of the resource is left."""

        def are_gone() -> bool:
            return not [path for path in self.children(run) if path.startswith("pods/")]

        eventually(are_gone, 60, what="the end of the pods")

    def exists(self, kind: str, name: str) -> bool:
        """Whether the resource is there."""
        try:
            self.read(kind, name)
        except ApiError:
            return False
        return True

    def _path(self, kind: str, name: str = "") -> str:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURALS[kind]}"
        return f"{path}/{name}" if name else path


def condition(status: Body, kind: str) -> Body:
    """One condition; empty when it is not there."""
    found: Body = next((item for item in status.get("conditions", ()) if item["type"] == kind), {})
    return found


def lasting(status: Body) -> Body:
    """A status without when its conditions changed and were last judged."""
    passing = {"lastTransitionTime", "observedGeneration"}
    conditions = [
        {key: value for key, value in item.items() if key not in passing} for item in status["conditions"]
    ]
    return status | {"conditions": conditions}
