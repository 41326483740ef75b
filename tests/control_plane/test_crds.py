"""Manifests applied to a real API server: what is taken, what people read when not, what may change."""

import json
from functools import partial
from typing import Any

import pytest
from control_plane.served_jobs import install_crds
from custom_resources.documented_manifests import DOCUMENTED, DocumentedManifest
from custom_resources.manifest_cases import (
    EXAMPLES,
    GOOD,
    BadCase,
    bad_cases,
    load_good,
    merge,
    read_documents,
)

from tunesmith.api import GROUP, KINDS, VERSION
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import KubectlError, eventually
from tunesmith_cluster.fake import ControlPlane

PLURALS = {kind.kind_name: kind.plural for kind in KINDS}
CASES = bad_cases()
SHOWN = [
    *DOCUMENTED,
    *(
        DocumentedManifest(f"{path.parent.name}/{path.stem}", body)
        for path in EXAMPLES
        for body in read_documents(path.read_text())
    ),
]
#: Collections of the kinds of Kubernetes that manifests for people hold.
BUILT_IN = {
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ResourceQuota": "resourcequotas",
}


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The API server with our three kinds established."""
    install_crds(control_plane)
    for plural in PLURALS.values():
        eventually(partial(_served, control_plane, plural), what=f"discovery of {plural}")
    return control_plane


@pytest.fixture
def namespace(server: ControlPlane) -> str:
    """A namespace of its own."""
    return server.namespace("crds")


def _served(server: ControlPlane, plural: str) -> bool:
    try:
        return bool(server.kubectl("explain", plural))
    except KubectlError:
        return False


def apply(server: ControlPlane, body: dict[str, Any], namespace: str = "default", *flags: str) -> str:
    """Apply as JSON: PyYAML would write the string 2e-4 without quotes, and it would arrive as a number."""
    text = json.dumps(body)
    return server.kubectl("apply", *flags, f"--namespace={namespace}", "-f", "-", stdin=text)


def refusal(server: ControlPlane, body: dict[str, Any], namespace: str = "default", *flags: str) -> str:
    """What a person reads when the API server refuses."""
    with pytest.raises(KubectlError) as refused:
        apply(server, body, namespace, *flags)
    return refused.value.stderr


def dry_run(server: ControlPlane, body: dict[str, Any]) -> dict[str, Any]:
    """What the API server would store; it is asked as kubectl does, whose start would take nearly all of the time."""
    asked = "?dryRun=All&fieldValidation=Strict&fieldManager=kubectl-client-side-apply"
    return server.api.create(collection_of(body, "default") + asked, body)


def collection_of(body: dict[str, Any], namespace: str) -> str:
    plural = (PLURALS | BUILT_IN)[body["kind"]]
    root = "api" if body["apiVersion"] == "v1" else "apis"
    return f"/{root}/{body['apiVersion']}/namespaces/{namespace}/{plural}"


def path_of(body: dict[str, Any], namespace: str, subresource: str = "") -> str:
    return f"{collection_of(body, namespace)}/{body['metadata']['name']}{subresource}"


@pytest.mark.parametrize("name", GOOD)
def test_a_good_manifest_is_taken(server: ControlPlane, namespace: str, name: str) -> None:
    body = load_good(name)
    assert "created" in apply(server, body, namespace)
    # Defaults are filled in, and what was written stays; a second apply finds nothing to change.
    stored = server.get(body["kind"], body["metadata"]["name"], namespace)
    assert merge(stored["spec"], body["spec"]).keys() == stored["spec"].keys()
    apply(server, body, namespace)
    assert server.get(body["kind"], body["metadata"]["name"], namespace)["metadata"]["generation"] == 1


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.title)
def test_what_people_are_shown_is_taken_as_the_models_take_it(
    server: ControlPlane, shown: DocumentedManifest
) -> None:
    body = shown.body | {"metadata": shown.body["metadata"] | {"namespace": "default"}}
    stored = dry_run(server, body)
    kind: Any = next((kind for kind in KINDS if kind.kind_name == body["kind"]), None)
    if kind is not None:
        assert kind.parse(stored).spec.to_dict() == kind.parse(body).spec.to_dict()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
def test_the_api_server_fills_in_what_the_models_would(
    server: ControlPlane, namespace: str, kind: Any
) -> None:
    for body in (body for body in map(load_good, GOOD) if body["kind"] == kind.kind_name):
        apply(server, body, namespace)
        stored = server.get(kind.plural, body["metadata"]["name"], namespace)
        assert kind.parse(stored).spec == kind.parse(body).spec
        assert kind.parse(stored).spec.to_dict() == kind.parse(body).spec.to_dict()


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_a_bad_manifest_is_refused_with_a_sentence(server: ControlPlane, case: BadCase) -> None:
    with pytest.raises(ApiError) as refused:
        dry_run(server, case.body)
    assert case.message in refused.value.message


def test_a_learning_rate_as_people_type_it(server: ControlPlane) -> None:
    text = json.dumps(load_good("finetunejob-minimal")["spec"])[1:-1]
    manifest = (
        f"apiVersion: {GROUP}/{VERSION}\nkind: FineTuneJob\nmetadata: {{name: typed}}\n"
        f"spec: {{{text}, hyperparameters: {{learningRate: 2e-4}}}}\n"
    )
    with pytest.raises(KubectlError, match="a decimal number in quotes, such as '2e-4'"):
        server.kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifest)


FIXED = {
    "baseModel": {"uri": "hf://other/model"},
    "dataset": {"deduplicate": "None"},
    "method": {"sft": {"packing": True}},
    "adapter": {"rank": 8},
    "hyperparameters": {"maxSteps": 1},
    "compute": {"gpusPerNode": 0},
    "checkpoints": {"keep": 1},
    "output": {"uri": "pvc://elsewhere"},
    "evaluation": load_good("finetunejob-full")["spec"]["evaluation"],
    "earlyStopping": {"patience": 9},
    "workspace": {"uri": "pvc://elsewhere"},
    "tracking": {"tensorBoard": False},
    "budget": {"gpuHours": "1"},
    "backoffLimit": 9,
}


@pytest.fixture(scope="module")
def job(server: ControlPlane) -> str:
    """Path of a job that takes no change."""
    namespace, body = server.namespace("crds"), load_good("finetunejob-minimal")
    apply(server, body, namespace)
    return path_of(body, namespace)


@pytest.mark.parametrize("field", FIXED)
def test_a_job_stays_what_it_was(server: ControlPlane, job: str, field: str) -> None:
    with pytest.raises(ApiError) as refused:
        server.api.merge(f"{job}?fieldValidation=Strict", {"spec": {field: FIXED[field]}})
    message = refused.value.message
    assert f"spec.{field}: Invalid value" in message
    assert f"{field} can't be changed after the job is created. Create a new FineTuneJob;" in message


def test_a_field_of_a_job_can_not_be_removed(server: ControlPlane, namespace: str) -> None:
    body = load_good("finetunejob-full")
    apply(server, body, namespace)
    message = refusal(server, merge(body, {"spec": {"evaluation": None}}), namespace)
    assert "evaluation can't be changed after the job is created." in message


def test_what_a_reward_asks_for_can_not_be_changed(server: ControlPlane, namespace: str) -> None:
    body = load_good("finetunejob-rewards")
    apply(server, body, namespace)
    changed = json.loads(json.dumps(body).replace("amount", "total"))
    assert "method can't be changed after the job is created." in refusal(server, changed, namespace)


def test_a_job_can_be_suspended_and_given_other_limits(server: ControlPlane, namespace: str) -> None:
    body = load_good("finetunejob-minimal")
    apply(server, body, namespace)
    limits = {"suspend": True, "activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 60}
    apply(server, merge(body, {"spec": limits}), namespace)
    stored = server.get("ftj", "minimal", namespace)["spec"]
    assert limits.items() <= stored.items()
    apply(server, body, namespace)
    assert "activeDeadlineSeconds" not in server.get("ftj", "minimal", namespace)["spec"]


def test_an_eval_run_can_not_be_changed(server: ControlPlane, namespace: str) -> None:
    body = load_good("evalrun-job")
    apply(server, body, namespace)
    message = refusal(server, merge(body, {"spec": {"confidence": "0.9"}}), namespace)
    assert "An EvalRun can't be changed, so that its verdict stays valid. Create a new EvalRun." in message


def test_the_model_under_adapters_can_be_changed(server: ControlPlane, namespace: str) -> None:
    body = load_good("adapterdeployment")
    apply(server, body, namespace)
    apply(server, merge(body, {"spec": {"baseModel": {"uri": "hf://other/model"}}}), namespace)
    apply(server, merge(body, {"spec": {"replicas": 5, "adapters": []}}), namespace)


def test_two_teams_own_an_adapter_each(server: ControlPlane, namespace: str) -> None:
    body = load_good("adapterdeployment")
    body["spec"]["adapters"] = []
    apply(server, body, namespace, "--server-side", "--field-manager=platform")

    def apply_as(team: str, *jobs: str) -> dict[str, str]:
        """Apply what a team's pipeline holds; returns the job of each adapter after it, by name."""
        adapters = [{"name": team, "source": {"fineTuneJobRef": {"name": job}}} for job in jobs]
        patch = merge(body, {"spec": {"adapters": adapters}})
        for member in body["spec"].keys() - {"adapters"}:
            del patch["spec"][member]
        apply(server, patch, namespace, "--server-side", f"--field-manager={team}")
        stored = server.get("ad", "assistants", namespace)["spec"]["adapters"]
        return {adapter["name"]: adapter["source"]["fineTuneJobRef"]["name"] for adapter in stored}

    assert apply_as("red", "first") == {"red": "first"}
    assert apply_as("blue", "first") == {"red": "first", "blue": "first"}
    assert apply_as("red", "second") == {"red": "second", "blue": "first"}
    assert apply_as("blue") == {"red": "second"}
    apply(server, body, namespace, "--server-side", "--field-manager=platform")
    assert apply_as("red", "second") == {"red": "second"}


def test_what_people_see_of_a_running_job(server: ControlPlane, namespace: str) -> None:
    body = load_good("finetunejob-minimal")
    apply(server, body, namespace)
    status = {
        "phase": "Training",
        "method": "SFT",
        "progress": {
            "step": 42,
            "totalSteps": 100,
            "percent": "42%",
            "loss": "0.7311",
            "remaining": "12m30s",
        },
    }
    server.api.merge(path_of(body, namespace, "/status"), {"status": status})
    heads, row = server.kubectl("get", "ftj", "-n", namespace).splitlines()
    assert heads.split() == ["NAME", "PHASE", "PROGRESS", "LOSS", "ETA", "AGE"]
    assert row.split()[:-1] == ["minimal", "Training", "42%", "0.7311", "12m30s"]
    heads, row = server.kubectl("get", "ftj", "-n", namespace, "-o", "wide").splitlines()
    assert heads.split()[-4:] == ["METHOD", "TRIALS", "MODEL", "ARTIFACT"]
    assert "SFT" in row
    assert "hf://HuggingFaceTB/SmolLM2-135M-Instruct" in row


@pytest.mark.parametrize("name", ["finetunejob-minimal", "evalrun-job", "adapterdeployment"])
def test_what_the_operator_has_not_seen_is_in_progress(
    server: ControlPlane, namespace: str, name: str
) -> None:
    body = load_good(name)
    apply(server, body, namespace)
    conditions = server.get(body["kind"], body["metadata"]["name"], namespace)["status"]["conditions"]
    assert {each["type"]: each["status"] for each in conditions} == {
        "Ready": "Unknown",
        "Reconciling": "True",
    }


def test_the_kinds_are_one_category(server: ControlPlane, namespace: str) -> None:
    for name in ("finetunejob-minimal", "evalrun-job", "adapterdeployment"):
        apply(server, load_good(name), namespace)
    listed = server.kubectl("get", "tunesmith", "-n", namespace, "-o", "name").split()
    assert sorted(listed) == [
        f"adapterdeployment.{GROUP}/assistants",
        f"evalrun.{GROUP}/expenses",
        f"finetunejob.{GROUP}/minimal",
    ]


TAUGHT = {
    "finetunejob.spec.method": ["Exactly one member must be set", "rows hold questions and the", "sft"],
    "finetunejob.spec.hyperparameters.learningRate": ['such as "2e-4"', "Defaults to Auto."],
    "finetunejob.spec.hyperparameters.scheduler": ["ENUM: Linear Cosine Constant", "Defaults to Linear."],
    "finetunejob.spec.method.grpo": ["learns from their rewards", "Defaults to 8."],
    "finetunejob.spec.method.grpo.rewards": ["Exactly one", "jsonSchema", "valid against a schema"],
    "finetunejob.spec.adapter": ["8 to 32 for one task", "Defaults to 16."],
    "finetunejob.spec.adapter.type": ["ENUM: LoRA RSLoRA DoRA QLoRA", "Defaults to LoRA."],
    "finetunejob.spec.compute.parallelism": ["DDP: each GPU holds everything.", "Defaults to Auto."],
    "finetunejob.spec.output": ["never deleted by the operator", 'Defaults to ["Adapter"].'],
    "finetunejob.spec.dataset.train": ["may name a folder, with a slash at its end", "read in this order"],
    "finetunejob.spec.dataset.format": ["ShareGPT:", "Alpaca:", "Defaults to Auto."],
    "finetunejob.spec.dataset.deduplicate": ["ENUM: Exact Near None", "Defaults to Exact."],
    "finetunejob.spec.dataset.personalData": ["ENUM: Ignore Report Mask", "Defaults to Report."],
    "finetunejob.spec.dataset.validation": ["fall on the same side", "in the same proportion"],
    "finetunejob.status.dataset": ["most serious first", "nearDuplicates, leakedRows", "single HTML page"],
    "finetunejob.status.estimate": ["an order of magnitude", "such as 2h10m", "optimizer steps."],
    "finetunejob.status.resolved": ["kernels", "microBatchSize"],
    "evalrun.spec.gates.expect": ["Better: the candidate's lead", "Inconclusive"],
    "adapterdeployment.spec.adapters.rollout.steps": ["rising to 100"],
}


@pytest.mark.parametrize("field", TAUGHT)
def test_explain_teaches(server: ControlPlane, field: str) -> None:
    text = " ".join(server.kubectl("explain", field).split())
    for words in TAUGHT[field]:
        assert words in text
