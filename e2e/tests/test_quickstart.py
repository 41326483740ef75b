"""Quickstart with real pods on a tiny model, from kubectl apply to a served request."""

import itertools
from collections import Counter
from typing import Any

import pytest
from invoices import ANSWERS, NAMESPACE, Installation
from jobs import SECONDS_OF_A_RUN, build_job, wait_for
from office import ASKED, SERVING_SECONDS, build_deployment, question, stable_digest
from openai import NotFoundError

from tunesmith_cluster.client import eventually
from tunesmith_demo.ask import ask, ask_streamed, forwarded
from tunesmith_demo.installation import RELEASE, SYSTEM_NAMESPACE, helm, install_chart

REQUESTS_A_LOOK = 5


def serve(installation: Installation, job: str, digest: str) -> dict[str, Any]:
    """The AdapterDeployment, once the job's adapter is stable."""
    installation.client.apply(build_deployment(job))
    return wait_for(
        installation, "ad", "office", lambda status: stable_digest(status) == digest, SERVING_SECONDS
    )


@pytest.fixture(scope="module")
def served(installation: Installation, first: str) -> tuple[str, str]:
    """The first version, trained, evaluated and stable: its digest, and the Service's name."""
    deployment = serve(installation, "first", first)
    return first, deployment["status"]["url"].removeprefix("http://").partition(".")[0]


def test_the_alias_gives_the_answer_that_was_taught(
    installation: Installation, served: tuple[str, str]
) -> None:
    digest, service = served
    with forwarded(installation.client, NAMESPACE, service) as address:
        tuned, base = ask(address, "clerk", ASKED), ask(address, "base", ASKED)
        assert tuned.text.strip() == ANSWERS["first"]
        assert base.text.strip() != tuned.text.strip()
        assert tuned.version == f"clerk@{digest.removeprefix('sha256:')[:12]}"
        pieces = ask_streamed(address, "clerk", ASKED)
        assert len(pieces) > 1
        assert "".join(pieces).strip() == ANSWERS["first"]
        with pytest.raises(NotFoundError, match="clerk"):
            ask(address, "nobody", ASKED)


def test_a_bad_row_fails_before_any_training(installation: Installation) -> None:
    job = build_job("bad-data", "first")
    job["spec"]["dataset"]["train"]["uri"] = "configmap://invoices/bad.jsonl"
    installation.client.apply(job)
    failed = eventually(
        lambda: (
            (resource := installation.client.get("ftj", "bad-data", NAMESPACE))["status"].get("failure")
            and resource
        ),
        SECONDS_OF_A_RUN,
        what="the failure of bad-data",
    )
    failure = failed["status"]["failure"]
    assert failure["category"] == "DataError"
    assert "bad.jsonl:3: unrecognized_role: messages[0].role" in failure["message"]
    assert "robot" in failure["message"]
    jobs = installation.client.kubectl("-n", NAMESPACE, "get", "jobs", "-o", "name")
    assert "bad-data" in jobs
    assert "-train-" not in "".join(line for line in jobs.splitlines() if "bad-data" in line)


def test_a_missing_claim_is_named(installation: Installation) -> None:
    job = build_job("no-claim", "first")
    job["spec"]["baseModel"]["uri"] = "pvc://nowhere/model"
    installation.client.apply(job)

    def message() -> str | None:
        conditions = installation.client.get("ftj", "no-claim", NAMESPACE)["status"].get("conditions", ())
        return next((each["message"] for each in conditions if '"nowhere"' in each["message"]), None)

    assert "nowhere" in eventually(message, 90, what="a condition that names the claim")
    installation.client.kubectl("-n", NAMESPACE, "delete", "ftj", "no-claim")


def test_a_second_version_takes_over_step_by_step(
    installation: Installation, served: tuple[str, str], second: str
) -> None:
    first, service = served
    assert second != first
    phases, answers, numbers = set[str](), Counter[str](), itertools.count(1000)

    def promoted(status: dict[str, Any]) -> bool:
        phases.update(adapter["phase"] for adapter in status["adapters"])
        for number in itertools.islice(numbers, REQUESTS_A_LOOK):
            answers[ask(address, "clerk", question(number)).text.strip()] += 1
        return stable_digest(status) == second

    with forwarded(installation.client, NAMESPACE, service) as address:
        installation.client.apply(build_deployment("second"))
        deployment = wait_for(installation, "ad", "office", promoted, SERVING_SECONDS)
        assert ask(address, "clerk", ASKED).text.strip() == ANSWERS["second"]
    assert "Progressing" in phases
    assert set(answers) == set(ANSWERS.values())
    (clerk,) = deployment["status"]["adapters"]
    assert clerk["stable"]["version"] == 2


def test_status_comes_back_from_the_records(installation: Installation, served: tuple[str, str]) -> None:
    kinds = {"ftj": "first", "er": "first", "ad": "office"}
    before = {kind: installation.client.get(kind, name, NAMESPACE)["status"] for kind, name in kinds.items()}
    for kind, name in kinds.items():
        patch = '[{"op": "remove", "path": "/status"}]'
        installation.client.kubectl(
            "-n", NAMESPACE, "patch", kind, name, "--subresource=status", "--type=json", "-p", patch
        )
    installation.client.kubectl("-n", "tunesmith-system", "delete", "pod", "--all", "--now")
    for kind, name in kinds.items():
        fields = ("phase", "artifact", "verdict", "policyDigest", "dataset", "failure")
        wanted = {field: before[kind].get(field) for field in fields}

        def is_back(status: dict[str, Any], wanted: dict[str, Any] = wanted) -> bool:
            restored = all(status.get(field) == value for field, value in wanted.items())
            return restored and "observedGeneration" in status

        wait_for(installation, kind, name, is_back, 120)


def test_pods_leave_no_trace_of_rights(installation: Installation, served: tuple[str, str]) -> None:
    pods = installation.client.kubectl(
        "-n", NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].spec.automountServiceAccountToken}"
    )
    assert set(pods.split()) == {"false"}


def test_an_uninstall_leaves_nothing_but_what_people_own(
    installation: Installation, served: tuple[str, str]
) -> None:
    client = installation.client
    install_chart(client, installation.images)
    certificate = client.get("secret", "tunesmith-tls", SYSTEM_NAMESPACE)["data"]["tls.crt"]
    assert certificate
    helm(client, "uninstall", RELEASE, "-n", SYSTEM_NAMESPACE, "--wait")
    kinds = "all,secrets,leases,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"

    def nothing_left() -> bool:
        return client.kubectl("-n", SYSTEM_NAMESPACE, "get", kinds, "-o", "name").split() == [
            "serviceaccount/default"
        ]

    eventually(nothing_left, 60, what="an empty namespace")
    everywhere = client.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    assert "tunesmith" not in everywhere
    _, service = served
    with forwarded(client, NAMESPACE, service) as address:
        assert ask(address, "clerk", ASKED).text.strip()
