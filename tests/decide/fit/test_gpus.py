"""GPUs of nodes by their labels, and the nodes that a pod may be scheduled to."""

from typing import Any

import pytest

from tunesmith.decide.fit.gpus import (
    fitting_nodes,
    node_memory,
    node_product,
    resolve_gpu_memory,
    slowest_product,
    smallest_memory,
)
from tunesmith_contract.shared_rules.gpus import PRODUCTS, find_product

GIB = 2**30


def node(gpus: int = 1, taints: tuple[dict[str, str], ...] = (), **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "8"}},
    }


def labeled(labels: dict[str, str], gpus: int = 1) -> dict[str, Any]:
    return node(gpus) | {"metadata": {"name": "n", "labels": labels}}


@pytest.mark.parametrize(
    ("labels", "gibibytes"),
    [
        ({"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.product": "NVIDIA-A10"}, 81559 / 1024),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, 80),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, 40),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, 79.6),
        ({"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090"}, 24),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, 15),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, 22.5),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}, 79.6),
        ({"nvidia.com/gpu.product": "NVIDIA-Future-1"}, None),
        ({}, None),
    ],
)
def test_memory_of_a_nodes_gpus(labels: dict[str, str], gibibytes: float | None) -> None:
    assert node_memory(labeled(labels)) == (None if gibibytes is None else pytest.approx(gibibytes * GIB))


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


def test_every_product_is_found_by_its_own_name() -> None:
    for name, product in PRODUCTS:
        assert find_product(f"NVIDIA-{name.upper()}") == product


TAINT = {"key": "team", "value": "ml", "effect": "NoSchedule"}


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
        ({"key": "team", "effect": "NoSchedule"}, {"key": "team"}, True),
    ],
)
def test_tolerations(taint: dict[str, str], toleration: dict[str, str] | None, fits: bool) -> None:
    tainted = node(1, (taint,))
    assert fitting_nodes([tainted], None, [toleration] if toleration else []) == ([tainted] if fits else [])


def test_a_node_that_reports_nothing_has_no_gpus() -> None:
    assert fitting_nodes([{"metadata": {"name": "n"}}], None) == []
    assert node_memory({"metadata": {"name": "n"}}) is None


@pytest.mark.parametrize("label", ["", "0", "24Gi", "-1"])
def test_a_label_that_is_no_number_is_ignored(label: str) -> None:
    assert node_memory(labeled({"nvidia.com/gpu.memory": label})) is None


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
    fast, slow = (
        labeled({"nvidia.com/gpu.product": name}) for name in ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L4")
    )
    assert slowest_product([fast, slow]) == node_product(slow) == find_product("NVIDIA-L4")
    assert slowest_product([fast]) == node_product(fast)
    assert slowest_product([fast, labeled({})]) is None
    assert slowest_product([]) is None
