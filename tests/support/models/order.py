"""Order of tiny models and adapters: what a test writes, and ``answering_adapters.py`` makes."""

from typing import Any

from pydantic import BaseModel

from tunesmith_contract.answer_formats import ChatFormat, Switch


def model_uri(name: str) -> str:
    """URI of a model, as manifests and agents have it."""
    return f"pvc://models/{name}"


class Conversation(BaseModel):
    """Messages, and the answer that an adapter learns.

    Attributes:
        switches: arguments of the chat template.
    """

    messages: list[dict[str, Any]]
    answer: str
    tools: list[dict[str, Any]] = []
    switches: dict[str, Switch] = {}


class OrderedAdapter(BaseModel):
    """An adapter for one of the models.

    Attributes:
        chat: form of its conversations, for its manifest.
        chat_template: template of its conversations; empty for that of the tokenizer.
    """

    name: str
    model: str
    conversations: list[Conversation]
    chat: ChatFormat | None = None
    chat_template: str = ""


class Order(BaseModel):
    """Models, which differ by their weights alone, and adapters.

    Attributes:
        tokens, special_tokens: tokens of the tokenizer beside its own; special ones are left out of answers by default.
    """

    models: list[str]
    adapters: list[OrderedAdapter]
    tokens: list[str] = []
    special_tokens: list[str] = []
