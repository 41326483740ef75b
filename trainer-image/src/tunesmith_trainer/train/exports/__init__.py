"""The same result in other formats: a merged model, and a GGUF for llama.cpp and Ollama."""

from .build import Result, build_exports

__all__ = ["Result", "build_exports"]
