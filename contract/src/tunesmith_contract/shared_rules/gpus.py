"""GPU products: memory and speed."""

import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Product:
    """A GPU by its maker's data sheet.

    Attributes:
        memory: bytes, as the driver gives them to programs.
        flops: dense bfloat16 (or float16, where there is none) multiplications and additions a second.
    """

    memory: int
    flops: float


def _product(gibibytes: float, teraflops: float) -> Product:
    return Product(int(gibibytes * GIB), teraflops * 1e12)


#: By a part of the product's name, the more special ones first. Data sheets count in 10^9 bytes or round up; these are
#: what ``nvidia-smi`` shows.
PRODUCTS: tuple[tuple[str, Product], ...] = (
    ("b300", _product(268, 2250)),
    ("gb200", _product(184, 2500)),
    ("b200", _product(178, 2250)),
    ("h200", _product(140, 989)),
    ("gh200", _product(95, 989)),
    ("h100-nvl", _product(93.5, 835)),
    ("h100-pcie", _product(79.6, 756)),
    ("h100", _product(79.6, 989)),
    ("h800", _product(79.6, 989)),
    ("h20", _product(95.5, 148)),
    ("a100-80gb", _product(80, 312)),
    ("a100-sxm4-80gb", _product(80, 312)),
    ("a100-pcie-80gb", _product(80, 312)),
    ("a100", _product(40, 312)),
    ("a800", _product(80, 312)),
    ("a40", _product(45, 150)),
    ("a30", _product(24, 165)),
    ("a10g", _product(22.5, 70)),
    ("a10", _product(22.5, 125)),
    ("l40s", _product(45, 362)),
    ("l40", _product(45, 181)),
    ("l4", _product(22.5, 121)),
    ("rtx-pro-6000", _product(95.6, 500)),
    ("rtx-6000-ada", _product(48, 364)),
    ("rtx-a6000", _product(48, 155)),
    ("rtx-a5000", _product(24, 111)),
    ("rtx-5090", _product(31.8, 210)),
    ("rtx-4090", _product(24, 165)),
    ("rtx-3090", _product(24, 71)),
    ("v100-sxm2-32gb", _product(32, 125)),
    ("v100", _product(16, 125)),
    ("p100", _product(16, 19)),
    ("t4", _product(15, 65)),
)


def find_product(name: str) -> Product | None:
    """Product that a label names, such as ``NVIDIA-H100-80GB-HBM3`` or ``nvidia-tesla-t4``; None: not in the table."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return next((product for part, product in PRODUCTS if f"-{part}-" in f"-{words}-"), None)
