"""Nodes that a pod may be scheduled to, those of them that can train, and what their GPUs have in common."""

from typing import Any

import pytest

from tunesmith.decide.fit.gpus import (
    describe_obstacles,
    fitting_nodes,
    most_sharing,
    node_memory,
    resolve_gpu_memory,
    slowest_product,
    smallest_memory,
    usable_nodes,
)
from tunesmith_contract.shared_rules.gpus import find_product

GIB = 2**30
DRIVER = "nvidia.com/cuda.driver-version.full"
PRODUCT = "nvidia.com/gpu.product"
MIG = "nvidia.com/mig-3g.40gb"


def node(gpus: int = 1, taints: tuple[dict[str, str], ...] = (), **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "8"}},
    }


def labeled(labels: dict[str, str], gpus: int = 1, name: str = "n") -> dict[str, Any]:
    return node(gpus) | {"metadata": {"name": name, "labels": labels}}


def test_the_smallest_gpu_that_a_pod_may_get_counts() -> None:
    small, large = (
        labeled({"nvidia.com/gpu.memory": "24576", "pool": "a"}),
        labeled({"nvidia.com/gpu.memory": "81920"}),
    )
    assert smallest_memory([small, large]) == 24 * GIB
    assert smallest_memory(fitting_nodes([small, large], {"pool": "a"})) == 24 * GIB
    assert smallest_memory([large, labeled({})]) is None
    assert smallest_memory([]) is None


def test_nodes_where_the_pod_can_not_go_do_not_count() -> None:
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    gpu = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    tainted, own = node(8, (taint,)), node(8, (gpu,))
    assert fitting_nodes([tainted, own, node(0)], None) == [own]
    assert fitting_nodes([tainted], None, [{"key": "dedicated", "value": "x"}]) == [tainted]
    assert fitting_nodes([tainted], None, [{"operator": "Exists"}]) == [tainted]
    assert fitting_nodes([tainted], None, [{"key": "dedicated", "value": "y"}]) == []
    assert fitting_nodes([own], None, (), gpus=9) == []


TAINT = {"key": "team", "value": "ml", "effect": "NoSchedule"}
AZURE = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("taint", "toleration", "fits"),
    [
        (TAINT, None, False),
        (TAINT, {"key": "team", "value": "ml"}, True),
        (TAINT, {"key": "team", "value": "web"}, False),
        (TAINT, {"key": "team"}, False),
        (TAINT, {"key": "team", "operator": "Exists"}, True),
        (TAINT, {"key": "other", "operator": "Exists"}, False),
        (TAINT, {"operator": "Exists"}, True),
        (TAINT, {"value": "ml"}, False),
        (TAINT, {"key": "team", "value": "ml", "effect": "NoSchedule"}, True),
        (TAINT, {"key": "team", "value": "ml", "effect": "NoExecute"}, False),
        (TAINT | {"effect": "NoExecute"}, None, False),
        (TAINT | {"effect": "PreferNoSchedule"}, None, True),
        ({"key": "nvidia.com/gpu", "effect": "NoSchedule"}, None, True),
        ({"key": "nvidia.com/gpu", "value": "present", "effect": "NoExecute"}, None, True),
        (AZURE, None, False),
        (AZURE, {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}, True),
        ({"key": "team", "effect": "NoSchedule"}, {"key": "team"}, True),
    ],
)
def test_tolerations(taint: dict[str, str], toleration: dict[str, str] | None, fits: bool) -> None:
    tainted = node(1, (taint,))
    assert fitting_nodes([tainted], None, [toleration] if toleration else []) == ([tainted] if fits else [])


def test_a_node_that_reports_nothing_has_no_gpus() -> None:
    assert fitting_nodes([{"metadata": {"name": "n"}}], None) == []
    assert node_memory({"metadata": {"name": "n"}}) is None


def test_slices_are_a_resource_of_their_own() -> None:
    sliced = labeled({f"{MIG}.memory": "40192", "nvidia.com/gpu.memory": "81920"}, gpus=0)
    sliced["status"]["allocatable"][MIG] = "2"
    assert fitting_nodes([sliced], None) == []
    assert fitting_nodes([sliced], None, gpus=2, resource=MIG) == [sliced]
    assert smallest_memory([sliced], MIG) == 40192 * 2**20
    sliced["spec"]["taints"] = [{"key": MIG, "effect": "NoSchedule"}]
    assert fitting_nodes([sliced], None, resource=MIG) == [sliced]


@pytest.mark.parametrize(
    ("setting", "observed", "memory"),
    [
        ("Auto", 80 * GIB, 80 * GIB),
        ("Auto", None, None),
        ("24Gi", 80 * GIB, 24 * GIB),
        ("24Gi", None, 24 * GIB),
    ],
)
def test_what_is_written_goes_before_what_is_observed(
    setting: str, observed: int | None, memory: int | None
) -> None:
    assert resolve_gpu_memory(setting, observed) == memory


def test_the_slowest_product_counts() -> None:
    fast, slow = (labeled({PRODUCT: name}) for name in ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L4"))
    assert slowest_product([fast, slow]) == find_product("NVIDIA-L4")
    assert slowest_product([fast]) == find_product("NVIDIA-H100-80GB-HBM3")
    assert slowest_product([fast, labeled({})]) is None
    assert slowest_product([]) is None


def test_the_most_shared_gpu_counts() -> None:
    assert most_sharing([labeled({}), labeled({"nvidia.com/gpu.replicas": "4"})]) == 4
    assert most_sharing([]) == 1


@pytest.mark.parametrize(
    ("labels", "cuda", "usable"),
    [
        ({DRIVER: "580.65.06"}, 13, True),
        ({DRIVER: "590.10"}, 13, True),
        ({DRIVER: "575.57.08"}, 13, False),
        ({DRIVER: "535.274.02"}, 13, False),
        ({DRIVER: "535.274.02"}, 12, True),
        ({DRIVER: "470.82"}, 12, False),
        ({DRIVER: "470.82"}, None, True),
        ({"nvidia.com/cuda.driver.major": "550", "nvidia.com/cuda.driver.minor": "54"}, 13, False),
        ({"nvidia.com/cuda.driver-version.major": "580"}, 13, True),
        ({"nvidia.com/cuda.runtime.major": "12"}, 13, False),
        ({"nvidia.com/cuda.runtime-version.major": "13"}, 13, True),
        ({DRIVER: "580.95", "nvidia.com/cuda.runtime.major": "12"}, 13, True),
        ({PRODUCT: "Tesla-V100-SXM2-32GB"}, 13, False),
        ({PRODUCT: "Tesla-T4"}, None, False),
        ({PRODUCT: "NVIDIA-A10G"}, 13, True),
        ({"nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "5"}, 13, False),
        ({"nvidia.com/gpu.compute.major": "12"}, 13, True),
        ({"nvidia.com/gpu.family": "turing"}, 13, False),
        ({"nvidia.com/gpu.family": "ampere"}, 13, True),
        ({"nvidia.com/gpu.family": "undefined"}, 13, True),
        ({}, 13, True),
    ],
)
def test_nodes_that_can_train(labels: dict[str, str], cuda: int | None, usable: bool) -> None:
    each = labeled(labels)
    assert usable_nodes([each], cuda) == ([each] if usable else [])
    assert (describe_obstacles([each], cuda) is None) == usable


def test_obstacles_name_nodes_and_what_they_have() -> None:
    old = [labeled({DRIVER: "535.274.02"}, name=f"old-{number}") for number in range(5)]
    volta = labeled({PRODUCT: "Tesla-V100-SXM2-16GB"}, name="volta")
    obstacle = describe_obstacles([*old, volta], 13)
    assert obstacle is not None
    assert obstacle.reason == "DriverTooOld"
    assert obstacle.message == (
        "driver 535.274.02, and CUDA 13 of the trainer image needs 580.65.06 or newer (old-0, old-1, old-2 and 2 "
        "more); Tesla-V100-SXM2-16GB has compute capability 7.0, and training in bfloat16 needs 8.0 or higher (volta)"
    )
    alone = describe_obstacles([volta], 13)
    assert alone is not None
    assert alone.reason == "UnsupportedGPU"


def test_many_causes_are_cut_to_the_length_of_a_message() -> None:
    nodes = [labeled({DRIVER: f"535.{number}"}, name="n" * 250) for number in range(40)]
    obstacle = describe_obstacles(nodes, 13)
    assert obstacle is not None
    assert obstacle.message.startswith("driver 535.0")
    assert len(obstacle.message) <= 1201


def test_one_node_that_can_train_is_no_obstacle() -> None:
    assert describe_obstacles([labeled({DRIVER: "535.1"}), labeled({DRIVER: "580.1"})], 13) is None
    assert describe_obstacles([], 13) is None
