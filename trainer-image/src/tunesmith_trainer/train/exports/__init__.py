"""Exports of a trained adapter or model: merged model, GGUF for llama.cpp and Ollama."""

from .build import ExportSources, build_exports

__all__ = ["ExportSources", "build_exports"]
