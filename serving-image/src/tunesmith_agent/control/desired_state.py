"""The desired state of the moment, whoever brought it: the higher generation wins."""

import logging
from collections.abc import Callable

from pydantic import ValidationError

from tunesmith_contract.agent import DesiredState

log = logging.getLogger(__name__)


class DesiredStore:
    """Keeps the newest DesiredState and tells of a newer one."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.current: DesiredState | None = None
        self._on_change = on_change

    def offer(self, data: str | bytes, source: str) -> bool:
        """Take a state in if it is newer; True if it was. What can't be read is logged and left out."""
        try:
            state = DesiredState.model_validate_json(data)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            log.error("desired state not understood", extra={"source": source, "problems": problems[:3]})
            return False
        if self.current is not None and state.generation <= self.current.generation:
            return False
        log.info("desired state", extra={"source": source, "generation": state.generation})
        self.current = state
        self._on_change()
        return True
