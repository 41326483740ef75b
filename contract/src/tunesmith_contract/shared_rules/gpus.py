"""GPU products: memory, speed and compute capability, and what training needs of them."""

import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Product:
    """A GPU by its maker's data sheet.

    Attributes:
        memory: bytes, as the driver gives them to programs.
        flops: dense bfloat16 (or float16, where there is none) multiplications and additions a second.
        capability: major and minor compute capability.
    """

    memory: int
    flops: float
    capability: tuple[int, int]

    @property
    def trains(self) -> bool:
        """True if the trainer can use it."""
        return self.capability >= BFLOAT16_CAPABILITY


#: Compute capability from which GPUs multiply bfloat16, the type in which all runs on GPUs compute (Ampere).
BFLOAT16_CAPABILITY = (8, 0)

#: The first Linux driver that runs programs of a CUDA release, by the release's major version (CUDA Toolkit release
#: notes, "minor version compatibility").
MINIMUM_DRIVERS = {12: "525.60.13", 13: "580.65.06"}

#: Memory of a GPU that its driver keeps from programs, and the part of the rest that training may be planned with.
RESERVED = 0.4 * GIB
PLANNED = 0.94


def minimum_branch(cuda: int) -> int:
    """Branch of the first driver that runs programs of this major version of CUDA, such as 580."""
    return int(MINIMUM_DRIVERS[cuda].partition(".")[0])


def usable_memory(total: int) -> int:
    """Bytes of a GPU that work may be planned with, of those that the driver states for the whole card.

    Programs see 0.3 to 0.9 GiB less than the driver states: error-correcting codes, page tables and firmware take a
    part, larger cards more. Estimates are up to 8 % too low. Six hundredths and 0.4 GiB cover both on all cards.
    """
    return max(0, int(PLANNED * total - RESERVED))


def _product(gibibytes: float, teraflops: float, capability: float) -> Product:
    major, minor = divmod(round(capability * 10), 10)
    return Product(int(gibibytes * GIB), teraflops * 1e12, (major, minor))


#: By a part of the product's name, the more special ones first; those that can't train are known, to be refused. Data
#: sheets count in 10^9 bytes or round up; these are what ``nvidia-smi`` shows.
PRODUCTS: tuple[tuple[str, Product], ...] = (
    ("b300", _product(268, 2250, 10.3)),
    ("gb200", _product(184, 2500, 10.0)),
    ("b200", _product(178, 2250, 10.0)),
    ("h200", _product(140, 989, 9.0)),
    ("gh200", _product(95, 989, 9.0)),
    ("h100-nvl", _product(93.5, 835, 9.0)),
    ("h100-pcie", _product(79.6, 756, 9.0)),
    ("h100", _product(79.6, 989, 9.0)),
    ("h800", _product(79.6, 989, 9.0)),
    ("h20", _product(95.5, 148, 9.0)),
    ("a100-80gb", _product(80, 312, 8.0)),
    ("a100-sxm4-80gb", _product(80, 312, 8.0)),
    ("a100-pcie-80gb", _product(80, 312, 8.0)),
    ("a100", _product(40, 312, 8.0)),
    ("a800", _product(80, 312, 8.0)),
    ("a40", _product(45, 150, 8.6)),
    ("a30", _product(24, 165, 8.0)),
    ("a10g", _product(22.5, 70, 8.6)),
    ("a10", _product(22.5, 125, 8.6)),
    ("l40s", _product(45, 362, 8.9)),
    ("l40", _product(45, 181, 8.9)),
    ("l4", _product(22.5, 121, 8.9)),
    ("rtx-pro-6000", _product(95.6, 500, 12.0)),
    ("rtx-6000-ada", _product(48, 364, 8.9)),
    ("rtx-a6000", _product(48, 155, 8.6)),
    ("rtx-a5000", _product(24, 111, 8.6)),
    ("rtx-5090", _product(31.8, 210, 12.0)),
    ("rtx-4090", _product(24, 165, 8.9)),
    ("rtx-3090", _product(24, 71, 8.6)),
    ("v100-sxm2-32gb", _product(32, 125, 7.0)),
    ("v100", _product(16, 125, 7.0)),
    ("p100", _product(16, 19, 6.0)),
    ("t4", _product(15, 65, 7.5)),
    ("t4g", _product(15, 65, 7.5)),
    ("rtx-2080-ti", _product(11, 54, 7.5)),
    ("quadro-rtx-8000", _product(45, 65, 7.5)),
    ("quadro-rtx-6000", _product(22.5, 65, 7.5)),
    ("p40", _product(22.5, 12, 6.1)),
    ("p4", _product(7.5, 5.5, 6.1)),
    ("m60", _product(7.5, 4.8, 5.2)),
    ("k80", _product(11, 4.1, 3.7)),
)


def find_product(name: str) -> Product | None:
    """Product that a label names, such as ``NVIDIA-H100-80GB-HBM3`` or ``nvidia-tesla-t4``; None: not in the table."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return next((product for part, product in PRODUCTS if f"-{part}-" in f"-{words}-"), None)
