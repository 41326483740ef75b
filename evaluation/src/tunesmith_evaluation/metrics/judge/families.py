"""Families of models, since a judge prefers answers of its own (Panickssery et al. 2024, arXiv:2404.13076)."""

import re
from collections.abc import Mapping, Sequence

_FAMILIES: Mapping[str, Sequence[str]] = {
    "OpenAI": ("gpt", "chatgpt", "o1", "o3", "o4"),
    "Anthropic": ("claude",),
    "Google": ("gemini", "gemma"),
    "Qwen": ("qwen", "qwq"),
    "Llama": ("llama", "vicuna", "nemotron", "tulu"),
    "Mistral": ("mistral", "mixtral", "ministral", "magistral", "codestral", "devstral"),
    "DeepSeek": ("deepseek",),
    "Microsoft": ("phi",),
    "Cohere": ("command", "aya"),
    "IBM": ("granite",),
    "SmolLM": ("smollm",),
    "GLM": ("glm", "chatglm"),
    "OLMo": ("olmo",),
    "Kimi": ("kimi", "moonshot"),
    "Yi": ("yi",),
    "Falcon": ("falcon",),
}
_BY_WORD = {word: family for family, words in _FAMILIES.items() for word in words}


def model_family(name: str) -> str | None:
    """Family of a model by its name, the last part of a path first; None if it is unknown."""
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z0-9]+", part):
            family = _BY_WORD.get(word) or _BY_WORD.get(re.sub(r"[\d.]+[a-z]*$", "", word))
            if family:
                return family
    return None


def warn_of_same_family(judge: str, sides: Mapping[str, str]) -> str:
    """Warning if the judge is of the family of a side's model; else empty.

    Args:
        judge: name of the judge's model.
        sides: name of the model by name of the side.
    """
    family = model_family(judge)
    same = [side for side, model in sides.items() if family is not None and model_family(model) == family]
    if not same:
        return ""
    return (
        f"the judge {judge} and {' and '.join(same)} are of one family ({family}), which judges prefer: choose another "
        "judge"
    )
