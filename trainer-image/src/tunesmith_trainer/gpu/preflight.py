"""Check of a worker's GPUs before it reads any model: a run starts on the GPUs that it asks for, or says why not."""

import logging
from collections.abc import Mapping

from tunesmith_contract.run_config import AnyConfig
from tunesmith_data.failures import InfrastructureError

from .device import requested_gpus
from .judgment import find_problem
from .probe import gather_facts

_log = logging.getLogger(__name__)


def check_gpus(config: AnyConfig, environment: Mapping[str, str]) -> None:
    """Check that this worker can use the GPUs that its run asks for.

    Each of several workers checks the one that it uses, a single worker all of them. The failure may be tried again,
    since another node may do better.

    Raises:
        InfrastructureError: it can't use them; the reason is one of ``GPUReason``.
    """
    workers = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    requested = max(requested_gpus(config), workers)
    local_devices = range(requested) if workers == 1 else [int(environment["LOCAL_RANK"])]
    facts = gather_facts(local_devices)
    problem = find_problem(facts, requested)
    if problem is not None:
        raise InfrastructureError(problem.reason, problem.message)
    if facts.usable > requested:
        _log.info(
            "the run asks for %d GPUs, and %d can be used: the others stay idle", requested, facts.usable
        )
    names = ", ".join(f"GPU {device.index}: {device.name}" for device in facts.devices)
    _log.info("%s; driver %s, CUDA %s, torch %s", names, facts.driver, facts.cuda, facts.torch)
