"""Order of an evaluation to the engine beside it: which model the engine is to serve, in a folder that both share.

The evaluation writes ``order.json``; the engine's container starts vLLM with its arguments, ends it when another order
comes, and writes ``state.json`` when vLLM ends by itself. Both files are replaced whole.
"""

from pathlib import PurePosixPath

from pydantic import Field

from .base import Document, Report

#: Folder that both containers share.
ORDER_FOLDER = PurePosixPath("/tunesmith/engine")
ORDER_FILE, STATE_FILE = "order.json", "state.json"

#: Port on which the engine listens, on the loopback address that the containers of a pod share.
ENGINE_PORT = 8001


class EngineOrder(Document):
    """Order to the engine.

    Attributes:
        number: counts orders up; another number is another order.
        arguments: arguments of vLLM's server; empty: it is to end.
    """

    number: int = Field(ge=1)
    arguments: tuple[str, ...] = ()


class EngineState(Report):
    """End of vLLM that no order asked for.

    Attributes:
        number: order by which it was started.
        exit_code: its exit code; negative: the signal that ended it.
        message: end of its log.
        cause: the first error in it, of which later ones follow, and the last one; empty where none is found.
    """

    number: int = Field(ge=1)
    exit_code: int
    message: str = Field("", max_length=4096)
    cause: str = Field("", max_length=1024)
