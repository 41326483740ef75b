"""What an alias may serve, and what people are told when it may not."""

import pytest
from simulation.serving_world import World, build_adapter, digest_of

POLICY = digest_of("policy")


def gated(word: str, **requirement: str) -> dict[str, object]:
    return build_adapter(word, requireEvalRun={"verdict": "Pass", **requirement})


def stable_uri(world: World) -> str:
    """Where pods are to fetch the stable version of the first alias from."""
    stable = world.desired.aliases[0].stable
    assert stable is not None
    return stable.uri


def test_no_passing_eval_run_blocks_and_names_what_is_missing() -> None:
    world = World(gated("one"))
    world.judge("quality", "one", "Inconclusive")
    world.settle()
    adapter = world.adapter()
    assert (adapter["phase"], adapter["reason"]) == ("Blocked", "NoPassingEvalRun")
    short = digest_of("one")[7:19]
    assert (
        adapter["message"] == f"an EvalRun with verdict Pass for {short} is needed: quality says Inconclusive"
    )
    assert world.desired.aliases[0].candidate is None
    assert world.reasons() == ["NoPassingEvalRun"]
    assert world.condition("Reconciling")["status"] == "True"


def test_a_pass_of_this_very_digest_opens_the_gate() -> None:
    world = World(gated("one"))
    world.judge("another", "two", "Pass")
    world.settle()
    assert world.adapter()["message"].endswith("and no EvalRun has judged it")
    world.judge("quality", "one", "Pass")
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["evaluated"]) == ("Stable", "Pass")


def test_only_the_named_policy_counts() -> None:
    world = World(gated("one", policyDigest=POLICY))
    world.judge("quick", "one", "Pass", digest_of("another policy"))
    world.settle()
    assert world.adapter()["phase"] == "Blocked"
    assert "quick has sha256:" in world.adapter()["message"]
    world.judge("thorough", "one", "Pass", POLICY)
    world.settle()
    assert world.adapter()["phase"] == "Stable"


def test_a_version_that_passed_once_needs_its_eval_run_no_more() -> None:
    world = World(gated("one"))
    world.judge("quality", "one", "Pass")
    world.settle()
    world.eval_runs.clear()
    world.set_adapter(build_adapter("two"))
    world.settle()
    world.set_adapter(gated("one"))
    world.settle()
    assert world.adapter()["phase"] == "Stable"


def test_no_proof_asked_is_said_out_loud() -> None:
    world = World(build_adapter("one"))
    world.settle()
    adapter = world.adapter()
    assert (adapter["phase"], adapter["reason"], adapter["evaluated"]) == (
        "Stable",
        "Unevaluated",
        "Unevaluated",
    )


def test_a_job_brings_its_artifact_and_may_be_deleted() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.jobs["tune"] = None
    world.settle()
    assert world.adapter()["message"] == "FineTuneJob tune does not exist in this namespace"
    world.jobs["tune"] = {"metadata": {"name": "tune"}, "status": {"phase": "Training"}}
    world.pass_seconds(10)
    assert world.adapter()["message"] == "FineTuneJob tune has no artifact yet"
    assert world.plan.requeue_after is not None
    world.finish_job("tune", "one")
    world.settle()
    assert world.adapter()["stable"]["digest"] == digest_of("one")
    world.jobs["tune"] = None
    world.pass_seconds(60)
    assert (world.adapter()["phase"], world.adapter()["stable"]["loadedOn"]) == ("Stable", 2)


def test_a_failed_job_stalls_what_was_never_served() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.jobs["tune"] = {"metadata": {"name": "tune"}, "status": {"phase": "Failed"}}
    world.settle()
    assert world.adapter()["reason"] == "SourceFailed"
    assert (world.condition("Stalled")["status"], world.condition("Reconciling")["status"]) == (
        "True",
        "False",
    )


def test_what_its_job_said_can_not_be_served_is_not_rolled_out() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.finish_job("tune", "one")
    job = world.jobs["tune"]
    assert job is not None
    job["status"]["artifact"]["servable"] = False
    sentence = "adapter.rank: the serving engine serves ranks up to 512, not 600: write 512 or less."
    job["status"]["conditions"] = [
        {
            "type": "Servable",
            "status": "False",
            "reason": "NotServable",
            "message": sentence,
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
    ]
    world.settle()
    assert (world.adapter()["reason"], world.adapter()["message"]) == ("Incompatible", sentence)
    assert not world.desired.aliases or world.desired.aliases[0].candidate is None


def test_an_artifact_on_a_claim_that_pods_lack_is_blocked_and_rolls_no_pod() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}), artifactVolumes=[])
    world.finish_job("tune", "one")
    world.settle()
    before = world.find("Deployment")
    assert world.adapter()["reason"] == "SourceUnreachable"
    assert "add {claim: artifacts} to artifactVolumes" in world.adapter()["message"]
    assert world.condition("SourcesReachable")["status"] == "False"
    world.pass_seconds(60)
    assert world.find("Deployment") == before


@pytest.mark.parametrize(
    "place",
    ["s3://bucket/out/sha256/x", "gs://bucket/x", "oci://registry.example/a:sha256-x", "hf://org/repo/x"],
)
def test_an_artifact_that_pods_fetch_needs_no_claim(place: str) -> None:
    source = {"uri": place, "digest": digest_of("one")}
    world = World(build_adapter("one", source=source), artifactVolumes=[])
    world.settle()
    assert stable_uri(world) == place
    assert world.condition("SourcesReachable")["status"] == "True"


def test_the_same_bytes_at_another_place_are_read_there_without_a_rollout() -> None:
    world = World(build_adapter("one"))
    world.settle()
    moved = {"uri": "pvc://artifacts/moved", "digest": digest_of("one")}
    world.set_adapter(build_adapter("one", source=moved))
    world.settle()
    assert stable_uri(world) == "pvc://artifacts/moved"
    assert (world.adapter()["phase"], world.adapter()["stable"]["version"]) == ("Stable", 1)
    assert world.reasons() == ["Loading", "Promoted"]


def test_taking_the_claim_from_under_a_stable_version_is_said() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.finish_job("tune", "one")
    world.settle()
    world.spec = world.spec | {"artifactVolumes": []}
    world.generation += 1
    world.settle()
    assert (world.adapter()["phase"], world.adapter()["reason"]) == ("Degraded", "SourceUnreachable")
    assert world.condition("SourcesReachable")["status"] == "False"
    assert world.condition("Stalled")["status"] == "True"


def test_what_is_not_wanted_any_more_gets_no_more_requests_even_while_the_next_is_blocked() -> None:
    world = World(build_adapter("one"))
    world.settle()
    world.set_adapter(build_adapter("two"))
    world.settle()
    assert world.desired.aliases[0].weight == 5
    world.set_adapter(gated("three"))
    world.settle()
    assert (world.adapter()["phase"], world.desired.aliases[0].weight) == ("Blocked", 0)
    assert world.adapter()["stable"]["version"] == 1
