"""Judgment of GPUs: what is refused, for which reason, and what the message says to do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import TERMINATION_MESSAGE_BYTES, Failure, GPUReason, RunReport
from tunesmith_trainer.gpu.facts import DeviceFacts, GPUFacts
from tunesmith_trainer.gpu.judgment import find_problem, is_too_old, runs_on

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
H100 = DeviceFacts(0, "NVIDIA H100 80GB HBM3", (9, 0))
T4 = DeviceFacts(0, "Tesla T4", (7, 5))
V100 = DeviceFacts(0, "Tesla V100-SXM2-16GB", (7, 0))
THOR = DeviceFacts(0, "NVIDIA Thor", (11, 0))
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"

#: One H100 with a driver for CUDA 13.
GOOD = GPUFacts(
    torch="2.13.0+cu130",
    cuda="13.0",
    architectures=ARCHITECTURES,
    usable=1,
    devices=(H100,),
    driver="580.95.05",
    driver_cuda=(13, 0),
    library=LIBRARY,
)
#: A pod without a driver, as on a node whose container runtime mounts none.
NOTHING = replace(GOOD, usable=0, devices=(), driver=None, driver_cuda=None, library=None)
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12020)."


def with_device(device: DeviceFacts) -> GPUFacts:
    return replace(GOOD, devices=(device,))


CASES: dict[str, tuple[GPUFacts, int, GPUReason, tuple[str, ...]]] = {
    "nothing is mounted": (
        replace(NOTHING, complaint="Found no NVIDIA driver on your system."),
        1,
        GPUReason.NO_GPU,
        ("asks for 1 GPU,", "runtimeClassName: nvidia", "No driver is seen", "Torch says: Found no NVIDIA"),
    ),
    "the library is not in the pod": (
        replace(NOTHING, driver="580.95.05"),
        1,
        GPUReason.NO_GPU,
        ("the driver's library was not mounted", "runtimeClassName", "Driver 580.95.05", "not found"),
    ),
    "the loader does not look where the library is": (
        replace(NOTHING, driver="580.95.05", unlisted_library="/usr/local/nvidia/lib64/libcuda.so.1"),
        1,
        GPUReason.NO_GPU,
        ("lies in /usr/local/nvidia/lib64:", "LD_LIBRARY_PATH"),
    ),
    "a driver without a GPU": (
        replace(GOOD, usable=0, devices=()),
        2,
        GPUReason.NO_GPU,
        ("asks for 2 GPUs, and torch can use 0", "device plugin", LIBRARY),
    ),
    "one of two": (GOOD, 2, GPUReason.NO_GPU, ("asks for 2 GPUs, and torch can use 1", "MIG")),
    "the switch between GPUs is down": (
        replace(GOOD, usable=0, devices=(), complaint="CUDA error 802: system not yet initialized"),
        8,
        GPUReason.NO_GPU,
        ("Fabric Manager",),
    ),
    "torch for CPUs": (
        replace(NOTHING, cuda=None, torch="2.13.0+cpu"),
        1,
        GPUReason.NO_GPU,
        ("torch 2.13.0+cpu of this image has no CUDA", "built for GPUs"),
    ),
    "an old driver": (
        replace(GOOD, usable=0, devices=(), driver="535.274.02", driver_cuda=(12, 2), complaint=OLD_DRIVER),
        1,
        GPUReason.DRIVER_TOO_OLD,
        ("580.65.06 or later", "older CUDA", "Driver 535.274.02 (CUDA 12.2)", OLD_DRIVER),
    ),
    "an old driver whose version is hidden": (
        replace(GOOD, usable=0, devices=(), driver=None, driver_cuda=(12, 8)),
        1,
        GPUReason.DRIVER_TOO_OLD,
        ("580.65.06", "No driver is seen (CUDA 12.8)"),
    ),
    "a driver older than the compiler": (
        with_device(replace(H100, error="the provided PTX was compiled with an unsupported toolchain.")),
        1,
        GPUReason.DRIVER_TOO_OLD,
        ("580.65.06", "unsupported toolchain"),
    ),
    "no bfloat16": (
        with_device(T4),
        1,
        GPUReason.UNSUPPORTED_GPU,
        ("GPU 0 (Tesla T4, compute capability 7.5)", "bfloat16", "8.0", "A100"),
    ),
    "older than any code": (with_device(V100), 1, GPUReason.UNSUPPORTED_GPU, ("7.0", "bfloat16")),
    "newer than any code": (
        with_device(THOR),
        1,
        GPUReason.UNSUPPORTED_GPU,
        ("11.0", "torch 2.13.0+cu130 of this image is built for sm_75 sm_80", "another GPU"),
    ),
    "no kernel for it after all": (
        with_device(replace(H100, error="CUDA error: no kernel image is available for execution")),
        1,
        GPUReason.UNSUPPORTED_GPU,
        ("no kernel image",),
    ),
    "broken": (
        with_device(replace(H100, error="CUDA error: uncorrectable ECC error encountered")),
        1,
        GPUReason.FAULTY_GPU,
        ("GPU 0 (NVIDIA H100", "Xid", "uncorrectable ECC"),
    ),
    "full": (
        with_device(replace(H100, error="CUDA out of memory. Tried to allocate 2.00 MiB")),
        1,
        GPUReason.FAULTY_GPU,
        ("other programs", "out of memory"),
    ),
    "the second one broken": (
        replace(GOOD, usable=2, devices=(H100, replace(H100, index=1, error="CUDA error: launch failure"))),
        2,
        GPUReason.FAULTY_GPU,
        ("GPU 1 ",),
    ),
}


@pytest.mark.parametrize(("facts", "requested", "reason", "parts"), CASES.values(), ids=CASES)
def test_refused(facts: GPUFacts, requested: int, reason: GPUReason, parts: tuple[str, ...]) -> None:
    problem = find_problem(facts, requested)
    assert problem is not None
    assert problem.reason is reason
    assert [part for part in parts if part not in problem.message] == []


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(GOOD, id="as it should be"),
        pytest.param(replace(GOOD, usable=8), id="more than asked for"),
        pytest.param(replace(GOOD, driver=None), id="a driver whose version is hidden"),
        pytest.param(
            replace(GOOD, driver="535.274.02", library="/usr/local/cuda/compat/libcuda.so.580.82.07"),
            id="an old driver with the compatibility library",
        ),
        pytest.param(
            replace(GOOD, cuda="12.8", driver="525.60.13", driver_cuda=(12, 0)),
            id="an older minor release of CUDA in the driver",
        ),
        pytest.param(with_device(DeviceFacts(0, "NVIDIA L4", (8, 9))), id="code of the same major version"),
        pytest.param(with_device(DeviceFacts(0, "NVIDIA B300", (10, 3))), id="a later minor version"),
        pytest.param(
            replace(with_device(THOR), architectures=("sm_90", "compute_90")), id="PTX of an earlier version"
        ),
    ],
)
def test_accepted(facts: GPUFacts) -> None:
    assert find_problem(facts, 1) is None


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (("sm_80",), (8, 0), True),
        (("sm_80",), (8, 9), True),
        (("sm_89",), (8, 6), False),
        (("sm_80",), (9, 0), False),
        (("compute_80",), (9, 0), True),
        (("compute_90",), (8, 9), False),
        (("sm_90a",), (9, 0), True),
        (("sm_100a",), (10, 3), False),
        (("sm_100f",), (10, 3), True),
        (("compute_100a",), (12, 0), False),
        (("compute_100f",), (12, 0), False),
        (("sm_120",), (12, 1), True),
        (("gfx90a",), (9, 0), False),
        ((), (9, 0), True),
    ],
)
def test_machine_code_runs_within_a_major_version_and_ptx_on_later_ones(
    architectures: tuple[str, ...], capability: tuple[int, int], runs: bool
) -> None:
    assert runs_on(capability, architectures) is runs


@given(st.integers(500, 620), st.integers(0, 300), st.integers(0, 99))
def test_versions_of_drivers_are_compared_as_numbers(branch: int, minor: int, patch: int) -> None:
    driver = f"{branch}.{minor}.{patch:02}"
    assert is_too_old(driver, "13.0") is ((branch, minor, patch) < (580, 65, 6))
    assert is_too_old(driver, "12.6") is ((branch, minor, patch) < (525, 60, 13))
    assert not is_too_old(driver, "99.0")


devices = st.builds(
    DeviceFacts,
    st.integers(0, 7),
    st.text(max_size=60),
    st.tuples(st.integers(3, 13), st.integers(0, 9)),
    st.just("") | st.text(max_size=5000),
)
versions = st.none() | st.from_regex(r"\d{1,3}(\.\d{1,3}){0,2}", fullmatch=True)
paths = st.none() | st.just("/usr/local/nvidia/lib64/libcuda.so.1")
any_facts = st.builds(
    GPUFacts,
    torch=st.just("2.13.0+cu130"),
    cuda=versions,
    architectures=st.lists(st.sampled_from(ARCHITECTURES), max_size=3).map(tuple),
    usable=st.integers(0, 8),
    devices=st.lists(devices, max_size=8).map(tuple),
    complaint=st.text(max_size=5000),
    driver=versions,
    driver_cuda=st.none() | st.tuples(st.integers(10, 14), st.integers(0, 9)),
    library=paths,
    unlisted_library=paths,
)


@given(any_facts, st.integers(1, 8))
def test_whatever_is_found_is_accepted_whole_or_refused_in_a_message_that_fits(
    facts: GPUFacts, requested: int
) -> None:
    problem = find_problem(facts, requested)
    if problem is None:
        assert facts.usable >= requested
        assert all(device.capability >= (8, 0) and not device.error for device in facts.devices)
        return
    category = FailureCategory.INFRASTRUCTURE
    failure = Failure(category=category, reason=problem.reason, message=problem.message, log="x" * 3000)
    report = RunReport.model_validate({"stage": "train", "outcome": "Failed", "failure": failure})
    message = report.to_termination_message()
    assert len(message) <= TERMINATION_MESSAGE_BYTES
    assert problem.message.split(":")[0] in RunReport.model_validate_json(message).failure.message  # type: ignore[union-attr]
