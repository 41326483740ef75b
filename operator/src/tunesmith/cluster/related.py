"""Resources of the operator's kinds that another one refers to."""

import logging
from typing import TypeVar

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.bodies import Key
from tunesmith.decide.refusal import without_invalid
from tunesmith.manifests.objects import Body

from .reconciler import Reader

logger = logging.getLogger(__name__)

_Resource = TypeVar("_Resource", FineTuneJob, AdapterDeployment)


def find_job(reader: Reader, namespace: str, name: str) -> FineTuneJob | None:
    """The FineTuneJob; None where it is not there or can't be read."""
    return parse_or_none(FineTuneJob, reader.bodies.get(Key("FineTuneJob", namespace, name)))


def parse_or_none(model: type[_Resource], body: Body | None) -> _Resource | None:
    """The resource; None for one that can't be read: its own status tells why, and it must stop no other one."""
    if body is None:
        return None
    try:
        return model.parse(without_invalid(body))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        metadata = body["metadata"]
        logger.warning(
            "%s %s/%s can't be read: %s", body["kind"], metadata["namespace"], metadata["name"], error
        )
        return None
