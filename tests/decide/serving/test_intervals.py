"""How often an AdapterDeployment is looked at without a cause: hundreds of them must leave the operator at rest."""

from simulation.serving_world import World, build_adapter, digest_of

from tunesmith.decide.serving.planning import BUSY_SECONDS, REFERRING_SECONDS, UNCONNECTED_SECONDS


def test_what_loads_is_looked_at_often_only_while_an_agent_is_connected() -> None:
    world = World(build_adapter("one"))
    world.slow.add(digest_of("one"))
    world.settle()
    assert world.plan.requeue_after == BUSY_SECONDS
    for pod in world.pods.values():
        pod.connected = False
    world.reconcile()
    # The candidate's own time is written in shorter intervals.
    heartbeat = 10.0
    assert world.plan.requeue_after == min(UNCONNECTED_SECONDS, heartbeat)
    world.connect("pod-0")
    world.reconcile()
    assert world.plan.requeue_after == BUSY_SECONDS


def test_a_job_that_is_referred_to_tells_its_end_by_itself() -> None:
    world = World(build_adapter("x", source={"fineTuneJobRef": {"name": "tune"}}))
    world.jobs["tune"] = {"metadata": {"name": "tune"}, "status": {"phase": "Training"}}
    world.settle()
    assert world.plan.requeue_after == REFERRING_SECONDS
    world.finish_job("tune", "one")
    world.settle()
    world.pass_seconds(600)
    assert (world.adapter()["phase"], world.plan.requeue_after) == ("Stable", REFERRING_SECONDS)
