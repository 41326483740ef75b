"""Exports of a trained adapter or model: merged model, GGUF for llama.cpp and Ollama."""

from .build import TrainedFiles, build_exports

__all__ = ["TrainedFiles", "build_exports"]
