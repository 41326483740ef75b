"""Node affinity of pods with GPUs: off nodes that can't train, on all that do not say so."""

from collections.abc import Mapping
from typing import Any

import pytest

from tunesmith.decide.fit.gpus import find_obstacle
from tunesmith.decide.fit.node_gpus import read_gpu
from tunesmith.manifests.environment import GPUNeeds
from tunesmith.manifests.gpu_placement import (
    FAMILIES,
    OLD_CLOUD_GPUS,
    usable_node_requirements,
    with_requirements,
)
from tunesmith.manifests.pods import on_one_node
from tunesmith_contract.shared_rules.gpus import find_product

DRIVERS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")


def trainer(cuda: int | None) -> GPUNeeds:
    return GPUNeeds("trainer image", (8, 0), cuda)


def admits(cuda: int | None, labels: Mapping[str, str]) -> bool:
    """True if a node with these labels meets all requirements."""
    requirements = usable_node_requirements(trainer(cuda))
    assert {each["operator"] for each in requirements} == {"NotIn"}
    return all(labels.get(each["key"]) not in each["values"] for each in requirements)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("branch", [470, 525, 535, 550, 565, 570, 575, 580, 590])
@pytest.mark.parametrize("cuda", [12, 13, None])
def test_nodes_are_excluded_by_the_driver_as_they_are_refused(
    driver: str, branch: int, cuda: int | None
) -> None:
    labels = {driver: str(branch)}
    assert admits(cuda, labels) == (find_obstacle(read_gpu(labels), trainer(cuda)) is None)


@pytest.mark.parametrize("major", range(3, 13))
def test_nodes_are_excluded_by_compute_capability_as_they_are_refused(major: int) -> None:
    labels = {"nvidia.com/gpu.compute.major": str(major), "nvidia.com/gpu.compute.minor": "0"}
    assert admits(13, labels) == (find_obstacle(read_gpu(labels), trainer(13)) is None)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_nodes_are_excluded_by_the_family_as_they_are_refused(name: str, capability: tuple[int, int]) -> None:
    labels, needs = {"nvidia.com/gpu.family": name}, GPUNeeds("serving image", capability, 13)
    (excluded,) = [
        each["values"] for each in usable_node_requirements(needs) if each["key"] == "nvidia.com/gpu.family"
    ]
    assert (name not in excluded) == (find_obstacle(read_gpu(labels), needs) is None)


def test_the_engine_is_not_kept_off_turing() -> None:
    excluded = {each["key"]: each["values"] for each in usable_node_requirements(GPUNeeds("x", (7, 5), 13))}
    assert "nvidia-tesla-t4" not in excluded["cloud.google.com/gke-accelerator"]
    assert "nvidia-tesla-v100" in excluded["cloud.google.com/gke-accelerator"]
    assert "7" not in excluded["nvidia.com/gpu.compute.major"]


@pytest.mark.parametrize("name", OLD_CLOUD_GPUS)
def test_old_gpus_of_clouds_are_excluded(name: str) -> None:
    product = find_product(name)
    assert product is not None
    assert not product.trains
    assert not admits(None, {"cloud.google.com/gke-accelerator": f"nvidia-tesla-{name}"})
    assert not admits(None, {"karpenter.k8s.aws/instance-gpu-name": name})
    assert not admits(None, {"eks.amazonaws.com/instance-gpu-name": name})


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"},
        {"karpenter.k8s.aws/instance-gpu-name": "l4"},
    ],
)
def test_nodes_that_say_nothing_wrong_are_admitted(labels: dict[str, str]) -> None:
    assert admits(13, labels)


def test_every_term_of_a_written_affinity_has_the_requirements() -> None:
    zone: dict[str, Any] = {"key": "zone", "operator": "In", "values": ["a"]}
    pool: dict[str, Any] = {"key": "pool", "operator": "Exists"}
    terms = [{"matchExpressions": [zone]}, {"matchExpressions": [pool]}]
    written = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    }
    added = {"key": "gpu", "operator": "NotIn", "values": ["old"]}
    assert with_requirements(written, [added]) == {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [zone, added]},
                    {"matchExpressions": [pool, added]},
                ]
            }
        }
    }
    assert terms[0] == {"matchExpressions": [zone]}, "the resource is left as it was"
    assert with_requirements(None, [added]) == {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [added]}]
            }
        }
    }


def test_the_node_of_the_other_pods_is_required_beside_what_is_written() -> None:
    near_cache = {"labelSelector": {"matchLabels": {"app": "cache"}}, "topologyKey": "zone"}
    wish = {"weight": 1, "podAffinityTerm": near_cache}
    written: dict[str, Any] = {
        "nodeAffinity": {"kept": True},
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [near_cache],
            "preferredDuringSchedulingIgnoredDuringExecution": [wish],
        },
        "podAntiAffinity": {"kept": True},
    }
    own = {"labelSelector": {"matchLabels": {"job": "a"}}, "topologyKey": "kubernetes.io/hostname"}
    assert on_one_node(written, {"job": "a"}) == written | {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [near_cache, own],
            "preferredDuringSchedulingIgnoredDuringExecution": [wish],
        }
    }
    assert on_one_node(None, {"job": "a"}) == {
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [own]}
    }
