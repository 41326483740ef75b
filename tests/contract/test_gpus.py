"""The table of GPU products, and the part of a GPU's memory that work may be planned with."""

import pytest

from tunesmith_contract.shared_rules.gpus import PRODUCTS, Product, find_product, usable_memory

GIB = 2**30

#: Architectures that the wheels of torch for CUDA 13 hold kernels for (``torch.cuda.get_arch_list()``). Kernels also
#: run on later GPUs of the same major version.
BUILT = ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0))


def has_kernels(product: Product) -> bool:
    major, minor = product.capability
    return any(built_major == major and built_minor <= minor for built_major, built_minor in BUILT)


def test_every_product_is_found_by_its_own_name() -> None:
    for name, product in PRODUCTS:
        assert find_product(f"NVIDIA-{name.upper()}") == product


def test_torch_has_kernels_for_every_product_that_trains() -> None:
    assert [name for name, product in PRODUCTS if product.trains and not has_kernels(product)] == []


def test_products_that_torch_has_no_kernels_for_do_not_train() -> None:
    without = {name for name, product in PRODUCTS if not has_kernels(product)}
    assert {"v100", "p100", "k80"} <= without
    assert not any(product.trains for name, product in PRODUCTS if name in without)


@pytest.mark.parametrize("name", ["Tesla-T4", "Quadro-RTX-6000", "NVIDIA-GeForce-RTX-2080-Ti"])
def test_gpus_without_bfloat16_do_not_train(name: str) -> None:
    product = find_product(name)
    assert product is not None
    assert has_kernels(product)
    assert not product.trains


@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        pytest.param(15360, 14.58, id="T4"),
        pytest.param(23034, 22.03, id="L4"),
        pytest.param(23028, 21.99, id="A10G"),
        pytest.param(24564, 23.65, id="RTX 4090"),
        pytest.param(32607, 31.36, id="RTX 5090"),
        pytest.param(40960, 39.39, id="A100 40GB"),
        pytest.param(46068, 44.39, id="L40S"),
        pytest.param(49140, 47.40, id="RTX A6000"),
        pytest.param(81920, 79.15, id="A100 80GB"),
        pytest.param(81559, 79.10, id="H100"),
        pytest.param(143771, 139.72, id="H200"),
    ],
)
def test_less_is_planned_with_than_programs_see(stated: int, seen: float) -> None:
    """Less by 3 to 8 %, the error of the estimate.

    Args:
        stated: MiB by the driver, which is what labels say.
        seen: GiB that PyTorch's messages state as the total capacity of such a GPU.
    """
    assert 0.92 < usable_memory(stated * 2**20) / (seen * GIB) < 0.97


def test_memory_that_is_planned_with_is_never_negative() -> None:
    assert usable_memory(0) == 0
