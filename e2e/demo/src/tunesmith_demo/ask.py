"""Requests to a served model by the OpenAI API through its Service."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import ClusterClient

VERSION_HEADER = "x-tunesmith-version"
REQUEST_SECONDS = 120.0


class Answer(NamedTuple):
    """Answer of a model, and its version."""

    text: str
    version: str


@contextmanager
def forwarded(client: ClusterClient, namespace: str, service: str) -> Iterator[str]:
    """A local address that reaches the Service while the block runs.

    Raises:
        ConnectionError: kubectl could not reach a pod of it.
    """
    command = [program("kubectl"), f"--kubeconfig={client.kubeconfig}", "-n", namespace, "port-forward"]
    process = subprocess.Popen(
        [*command, f"service/{service}", ":80"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        if match is None:
            raise ConnectionError(f"kubectl port-forward: {line.strip()}")
        yield f"http://127.0.0.1:{match[1]}"
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def ask(address: str, model: str, messages: list[ChatCompletionMessageParam], max_tokens: int = 64) -> Answer:
    """One chat completion, not streamed, at temperature 0."""
    with OpenAI(base_url=f"{address}/v1", api_key="unused", timeout=REQUEST_SECONDS) as openai:
        raw = openai.chat.completions.with_raw_response.create(
            model=model, messages=messages, max_tokens=max_tokens, temperature=0
        )
        completion = raw.parse()
        return Answer(completion.choices[0].message.content or "", raw.headers.get(VERSION_HEADER, ""))


def ask_streamed(
    address: str, model: str, messages: list[ChatCompletionMessageParam], max_tokens: int = 64
) -> list[str]:
    """The same, streamed: the pieces in the order in which they came."""
    with OpenAI(base_url=f"{address}/v1", api_key="unused", timeout=REQUEST_SECONDS) as openai:
        stream = openai.chat.completions.create(
            model=model, messages=messages, max_tokens=max_tokens, temperature=0, stream=True
        )
        return [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
