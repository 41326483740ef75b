"""Manifest of generated rows (``generation.json``), and the commit of the generate stage."""

import json
from typing import Any, Literal

from tunesmith_contract.base import Digest, Document, sha256_digest
from tunesmith_contract.layout import DATA_REPORT_FOLDER, GENERATION_FILE, generated_uri
from tunesmith_contract.report import Artifact, GenerationReport, Outcome, RunReport
from tunesmith_contract.run_config import GenerateConfig
from tunesmith_contract.uris import StorageUri
from tunesmith_data.endpoints.token_budget import TokenBudget
from tunesmith_data.pod.storage import Storage, file_digest
from tunesmith_data.pod.workspace import Workspace

from .prompts import TEMPLATES
from .row_maker import GeneratedRows


class SourceDigest(Document):
    """Digest of a file that was read."""

    name: str
    uri: str
    digest: Digest


class GenerationManifest(Document):
    """``generation.json``: the origin of the rows. It contains no keys of endpoints.

    Attributes:
        generation: teacher, task, instructions, parameters, filter and budget, as they were asked for.
        templates: prompt templates of teacher and judge.
        sources: the source rows, and the held-out rows.
        counts: number of rows by outcome.
        rows: the file of rows.
    """

    schema_version: Literal[1] = 1
    job: str
    namespace: str
    uid: str
    generation: dict[str, Any]
    templates: dict[str, str]
    seed: int
    sources: tuple[SourceDigest, ...]
    counts: dict[str, int]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    amount: str | None = None
    currency: str | None = None
    rows: Artifact


def describe_sources(config: GenerateConfig, storage: Storage) -> tuple[SourceDigest, ...]:
    """Digests of the files that were read."""
    named = [
        ("source", config.generation.source),
        *((held_out.name, held_out.uri) for held_out in config.held_out),
    ]
    return tuple(
        SourceDigest(name=name, uri=uri, digest=file_digest(storage.dataset_file(uri))) for name, uri in named
    )


def commit(
    config: GenerateConfig,
    storage: Storage,
    workspace: Workspace,
    generated: GeneratedRows,
    budget: TokenBudget,
) -> RunReport:
    """Write rows, manifest and report; the report commits the stage."""
    counts, spent, amount = generated.outcomes.to_dict(), budget.spent, budget.amount
    lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in generated.rows)
    rows = _write(workspace, generated_uri(workspace.work), b"".join(lines))
    took = {
        **spent._asdict(),
        "amount": amount and f"{amount:.6f}",
        "currency": config.generation.budget.currency,
    }
    owner = config.owner
    manifest = GenerationManifest(
        job=owner.name,
        namespace=owner.namespace,
        uid=owner.uid,
        generation=config.generation.to_dict(),
        templates=TEMPLATES,
        seed=config.seed,
        sources=describe_sources(config, storage),
        counts=counts,
        rows=rows,
        **took,
    )
    place = workspace.work.join(DATA_REPORT_FOLDER, GENERATION_FILE)
    written = _write(workspace, place, manifest.to_json().encode())
    generation = GenerationReport(
        **counts, **took, warnings=tuple(generated.warnings), generated=rows, manifest=written
    )
    report = RunReport(stage="generate", outcome=Outcome.SUCCEEDED, generation=generation)
    workspace.commit(report)
    return report


def _write(workspace: Workspace, uri: StorageUri, data: bytes) -> Artifact:
    workspace.write(uri, data)
    return Artifact(uri=str(uri), digest=sha256_digest(data), size_bytes=len(data))
