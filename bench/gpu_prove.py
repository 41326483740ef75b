"""Engine as the operator starts it, and proofs of the adapters of ``bench/gpu_smoke.py`` in it; see ``gpu_serve.sh``.

A step that fails leaves the others. ``OUT/gpu-serve.json`` has the results.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Folders of this source tree that this program imports from.
SOURCES = ("contract/src", "storage/src", "operator/src", "serving-image/src", "bench/gpu")
sys.path[:0] = [str(ROOT / folder) for folder in SOURCES]

import aiohttp  # noqa: E402
from check_runner import CheckFailed, Result, Skipped, Status  # noqa: E402
from shipped_engine import BASE_MODEL_NAME, Engine, start_engine, stop_engine, used_memory  # noqa: E402

from tunesmith_agent.control.proof import (  # noqa: E402
    Evidence,
    Measurement,
    ProofResult,
    expected_noise,
    judge,
    probes_to_measure,
    weigh,
)
from tunesmith_agent.engine.client import EngineClient, EngineUnavailable  # noqa: E402
from tunesmith_agent.http.address import TcpAddress  # noqa: E402
from tunesmith_contract.artifact import ArtifactKind, Manifest, Probe  # noqa: E402

RESULT_FILE = "gpu-serve.json"
_ADAPTERS = {ArtifactKind.LORA, ArtifactKind.RSLORA}
_PARALLEL = 32
_STEP_SECONDS = 120
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adapter that the smoke run trained."""

    name: str
    folder: Path
    manifest: Manifest


@dataclass(slots=True)
class Load:
    """Requests of others: tokens that were generated, seconds, and requests that failed."""

    tokens: int = 0
    seconds: float = 0.0
    failed: int = 0


class Report:
    """Results, printed and written as they come."""

    def __init__(self, file: Path) -> None:
        self.results: list[Result] = []
        self._file = file

    async def step(
        self, name: str, action: Callable[[], Awaitable[dict[str, Any]]], seconds: float = _STEP_SECONDS
    ) -> bool:
        """Do one step; false if it failed."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                result = Result(name, Status.OK, numbers=await action())
        except Skipped as skipped:
            result = Result(name, Status.SKIPPED, reason=str(skipped))
        except CheckFailed as failed:
            result = Result(name, Status.FAILED, reason=str(failed), numbers=failed.numbers)
        except TimeoutError:
            result = Result(name, Status.FAILED, reason=f"did not end within {seconds:.0f} s")
        except Exception as error:  # any fault of the engine is a result
            result = Result(name, Status.FAILED, reason=f"{type(error).__name__}: {error}")
        result.seconds = time.monotonic() - start
        self.results.append(result)
        print(result.line(), flush=True)
        document = {"checks": [asdict(found) for found in self.results]}
        self._file.write_text(json.dumps(document, indent=1) + "\n")
        return result.status is Status.OK


def find_adapters(output: Path) -> list[Adapter]:
    """Adapters of the smoke run that an engine can serve."""
    checks = json.loads((output / "gpu-smoke.json").read_text())["checks"]
    found = []
    for check in checks:
        artifact = check["numbers"].get("artifact")
        if check["status"] == Status.OK and artifact:
            folder = output / "work/pvc/out/sha256" / artifact["digest"].removeprefix("sha256:")
            manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
            if manifest.kind in _ADAPTERS:
                found.append(Adapter(check["name"], folder, manifest))
    return found


async def wait_for_health(engine: Engine) -> None:
    """Wait until the engine answers.

    Raises:
        CheckFailed: it has ended.
    """
    async with aiohttp.ClientSession() as session:
        while True:
            if engine.process.poll() is not None:
                end = " / ".join(engine.log.read_text(errors="replace").strip().splitlines()[-3:])
                raise CheckFailed(f"the engine ended with {engine.process.returncode}: {end[-600:]}")
            try:
                async with session.get(f"http://127.0.0.1:{engine.port}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)


async def prove(client: EngineClient, adapter: Adapter, repeats: int) -> dict[str, Any]:
    """Measure an adapter as the agent does, several times; the worst numbers.

    Raises:
        CheckFailed: a measurement contradicts the manifest.
    """
    evidence, verdicts = [], []
    for _ in range(repeats):
        probes, salt = probes_to_measure(adapter.manifest), uuid.uuid4().hex
        base = await client.log_probs("", probes, salt)
        tuned = await client.log_probs(adapter.name, probes, salt)
        evidence.append(weigh([Measurement(*values) for values in zip(probes, base, tuned, strict=True)]))
        verdicts.append(judge(evidence[-1], expected_noise(adapter.manifest)))
    refuse_inactive(probes, base, adapter)
    numbers = _worst(evidence) | {"verdict": "/".join(sorted({found.result.value for found in verdicts}))}
    wrong = [found for found in verdicts if found.result not in {ProofResult.PROVED, ProofResult.UNPROVEN}]
    if wrong:
        raise CheckFailed(wrong[0].message, **numbers)
    return numbers


def refuse_inactive(probes: list[Probe], base: list[list[float]], adapter: Adapter) -> None:
    """Judge the base model's answers as if they were the adapter's.

    Raises:
        CheckFailed: they pass as the adapter's.
    """
    evidence = weigh([Measurement(*values) for values in zip(probes, base, base, strict=True)])
    if judge(evidence, expected_noise(adapter.manifest)).result is ProofResult.PROVED:
        raise CheckFailed("the base model passes as the adapter")


def _worst(evidence: list[Evidence]) -> dict[str, Any]:
    return {
        "measurements": len(evidence),
        "tokens": evidence[0].tokens,
        "effect": evidence[0].effect,
        "share": max((found.share for found in evidence), key=lambda share: abs(share - 1)),
        "baseMean": max((found.base_mean for found in evidence), key=abs),
        "baseRootMeanSquare": max(found.base_rms for found in evidence),
        "residualRootMeanSquare": max(found.residual_rms for found in evidence),
    }


@asynccontextmanager
async def load_of_others(port: int, adapters: list[Adapter], max_tokens: int) -> AsyncIterator[Load]:
    """Parallel requests to base model and adapters while the block runs."""
    load = Load()
    models = [BASE_MODEL_NAME, *(adapter.name for adapter in adapters)]
    prompts = [
        list(probe.token_ids[: probe.prompt_length])
        for adapter in adapters
        for probe in adapter.manifest.probes
    ]
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_STEP_SECONDS))

    async def request_forever(number: int) -> None:
        for turn in itertools.count(number):
            body = {"model": models[turn % len(models)], "prompt": prompts[turn % len(prompts)]}
            body |= {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 1}
            try:
                async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body) as response:
                    answer = await response.json()
                    load.tokens += answer["usage"]["completion_tokens"]
            except (aiohttp.ClientError, TimeoutError, KeyError):
                load.failed += 1
                await asyncio.sleep(0.5)

    start = time.monotonic()
    tasks = [asyncio.create_task(request_forever(number)) for number in range(_PARALLEL)]
    try:
        yield load
    finally:
        load.seconds = time.monotonic() - start
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()


async def run_steps(engine: Engine, adapters: list[Adapter], report: Report, repeats: int) -> None:
    """All steps after the start of the engine's process."""
    started = time.monotonic()

    async def start() -> dict[str, Any]:
        await wait_for_health(engine)
        return {"gpus": engine.gpus, "startSeconds": time.monotonic() - started}

    if not await report.step("start", start, engine.start_seconds):
        return
    async with EngineClient(TcpAddress("127.0.0.1", engine.port), BASE_MODEL_NAME) as client:

        async def load(adapter: Adapter) -> dict[str, Any]:
            await client.load(adapter.name, str(adapter.folder))
            return {"rank": adapter.manifest.rank}

        loaded = [
            adapter
            for adapter in adapters
            if await report.step(f"load {adapter.name}", lambda a=adapter: load(a))
        ]
        if not loaded:
            return
        for adapter in loaded:
            await report.step(f"idle {adapter.name}", lambda a=adapter: prove(client, a, repeats))
        async with load_of_others(engine.port, loaded, 64 if engine.gpus else 8) as others:
            for adapter in loaded:
                await report.step(f"busy {adapter.name}", lambda a=adapter: prove(client, a, repeats))

    async def speed() -> dict[str, Any]:
        numbers: dict[str, Any] = {"parallel": _PARALLEL, "tokensPerSecond": others.tokens / others.seconds}
        numbers |= {"failedRequests": others.failed, "memoryGiB": used_memory(engine) / _GIB}
        if others.failed or not others.tokens:
            raise CheckFailed("requests failed under load", **numbers)
        return numbers

    await report.step("speed", speed)


def main() -> int:
    """Start the engine, and do all steps; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--engine-python", required=True, help="Python of vLLM's environment")
    parser.add_argument("--adapters", nargs="+", help="some of the adapters, by the names of their checks")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each adapter, idle and busy")
    parser.add_argument("--start-seconds", type=float, default=300, help="limit of the engine's start")
    options = parser.parse_args()
    output = options.output.resolve()
    report = Report(output / RESULT_FILE)
    adapters = [
        adapter
        for adapter in find_adapters(output)
        if options.adapters is None or adapter.name in options.adapters
    ]
    if not adapters:
        sys.exit("there is no adapter to serve: run bench/gpu_smoke.py OUT first")
    engine = start_engine(output, options.engine_python, options.start_seconds)
    try:
        asyncio.run(run_steps(engine, adapters, report, options.repeats))
    except EngineUnavailable as error:
        print(error)
    finally:
        stop_engine(engine)
    print(f"log of the engine: {engine.log}; results: {output / RESULT_FILE}")
    return int(any(result.status is Status.FAILED for result in report.results))


if __name__ == "__main__":
    sys.exit(main())
