"""Claims that not all pods can mount: said in the status, and never the end of an update."""

from typing import Any

import pytest
from simulation.serving_world import World, build_adapter

from tunesmith.decide.serving.pods.claims import mounted_claims

Modes = dict[str, tuple[str, ...]]

SHARED: Modes = {"artifacts": ("ReadWriteMany",), "models": ("ReadOnlyMany",)}
ON_ONE_NODE: Modes = SHARED | {"artifacts": ("ReadWriteOnce",)}
ONE_POD: Modes = SHARED | {"models": ("ReadWriteOncePod",)}


def world_of(modes: Modes, gpus: int, replicas: int, **engine: Any) -> World:
    world = World(build_adapter("one"), engine={"gpus": gpus, **engine}, replicas=replicas, pods=replicas)
    world.claims = modes
    world.settle()
    return world


def spec_of(world: World) -> dict[str, Any]:
    deployment = world.find("Deployment")
    assert deployment is not None
    spec: dict[str, Any] = deployment["spec"]
    return spec


def affinity_of(world: World) -> dict[str, Any]:
    affinity: dict[str, Any] = spec_of(world)["template"]["spec"].get("affinity", {})
    return affinity


def surge_of(world: World) -> int:
    surge: int = spec_of(world)["strategy"]["rollingUpdate"]["maxSurge"]
    return surge


@pytest.mark.parametrize(
    ("modes", "gpus", "surge"),
    [(SHARED, 1, 1), (ON_ONE_NODE, 0, 1), (ON_ONE_NODE, 1, 0), (ONE_POD, 0, 0), (ONE_POD, 1, 0)],
)
def test_the_successor_of_the_only_pod_never_waits_for_its_volume(
    modes: Modes, gpus: int, surge: int
) -> None:
    world = world_of(modes, gpus, 1)
    assert surge_of(world) == surge
    together = (
        affinity_of(world).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    )
    assert bool(together) == (modes is not SHARED)
    for term in together:
        labels = spec_of(world)["template"]["metadata"]["labels"].items()
        assert term["labelSelector"]["matchLabels"].items() <= labels
        assert term["topologyKey"] == "kubernetes.io/hostname"


def test_the_users_order_of_updates_wins() -> None:
    assert surge_of(world_of(ON_ONE_NODE, 1, 1, updateStrategy="StartFirst")) == 1


def test_a_claim_of_one_node_is_said_and_does_not_stall() -> None:
    world = world_of(ON_ONE_NODE, 0, 2)
    condition = world.condition("VolumesShared")
    assert (condition["status"], condition["reason"]) == ("False", "ClaimOnOneNode")
    assert condition["message"].startswith(
        'PersistentVolumeClaim "artifacts" is ReadWriteOnce: all pods run on one node'
    )
    assert world.condition("Stalled")["status"] == "False"
    name, deployment = next((key, body) for key, body in world.objects.items() if key[0] == "Deployment")
    world.objects[name] = deployment | {"status": {}}
    world.add_unschedulable_pod("pod-2", "0/2 nodes are available: 1 Insufficient cpu")
    world.reconcile()
    assert "ReadWriteOnce" in world.condition("Ready")["message"]


def test_a_claim_of_one_pod_stalls_several() -> None:
    world = world_of(ONE_POD, 0, 2)
    assert world.condition("Stalled")["reason"] == "ClaimNotShared"
    assert "write replicas: 1" in world.condition("Stalled")["message"]
    world.spec = world.spec | {"replicas": 1}
    world.settle()
    assert world.condition("Stalled")["status"] == "False"


def test_the_verdict_stays_while_the_claims_are_not_read_and_ends_with_them() -> None:
    world = world_of(ON_ONE_NODE, 1, 1)
    world.claims = None
    world.settle()
    assert not world.reconcile().actions
    assert world.condition("VolumesShared")["status"] == "False"
    world.claims = SHARED
    world.settle()
    assert world.condition("VolumesShared")["status"] == "True"
    assert surge_of(world) == 1


def test_pods_of_an_earlier_release_are_not_replaced_for_a_claim() -> None:
    world = world_of(SHARED, 0, 1)
    template = spec_of(world)["template"]
    world.claims = ON_ONE_NODE
    world.settle()
    assert spec_of(world)["template"] == template
    world.spec = world.spec | {"engine": {"gpus": 0, "maxRank": 8, "updateStrategy": "StopFirst"}}
    world.settle()
    assert "podAffinity" in affinity_of(world)


def test_claims_among_the_volumes_of_people_count_too() -> None:
    def mounted(*claims: dict[str, Any]) -> dict[str, bool]:
        volumes = [
            {"name": f"v{index}", "persistentVolumeClaim": claim} for index, claim in enumerate(claims)
        ]
        spec = World(build_adapter("one"), engine={"gpus": 0, "template": {"volumes": volumes}}).resource.spec
        return {
            name: mounted_claims(spec)[name] for name in ("own", "shared") if name in mounted_claims(spec)
        }

    assert mounted({"claimName": "own"}, {"claimName": "shared", "readOnly": True}) == {
        "own": True,
        "shared": False,
    }
