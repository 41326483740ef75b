"""Compared models of an evaluation: their source and their prompt settings."""

from typing import Annotated, ClassVar

from pydantic import Field

from .common import FineTuneJobRef, SecretName, StrictModel
from .endpoints import ChatEndpoint
from .rules import DIGEST_WITH_URI, Rule, any_of, exactly_one
from .sources import STORE_KEYS
from .template_arguments import TemplateArguments
from .uris import ArtifactUri, TrainedModelUri, ValidationDataUri
from .values import (
    Currency,
    DecimalString,
    DigestString,
    ItemName,
    MemberPath,
    ObjectName,
    PositiveDecimal,
)


class Prompting(StrictModel):
    """Prompt settings of one compared model."""

    system_prompt: Annotated[str, Field(max_length=8192)] | None = Field(
        None,
        description="The system message of every item. It replaces a system message that the item already has. If"
        " unset, items are used unchanged.",
    )
    few_shot: int = Field(
        0,
        ge=0,
        le=32,
        description="The number of rows of fewShotFrom that are shown as worked examples before each item. The "
        "same rows are used for every item. They are drawn with spec.seed and never hold an item or a near copy "
        "of one.",
    )
    context_column: MemberPath | None = Field(
        None,
        description="A column of the items, such as passages, whose text (or list of texts) stands before the "
        "question: retrieved passages. Compare a model that gets them with one that does not.",
    )
    template_arguments: TemplateArguments | None = Field(
        None,
        description='Arguments of the chat template, with values in JSON, such as enable_thinking: "false". They are '
        "part of the policy. If unset, an adapter is asked with those that it was trained with.",
    )


class BaseModelSide(StrictModel):
    """The base model without an adapter. It has no fields: write {}."""


class ModelSide(StrictModel):
    """A whole model other than the base model of the run."""

    uri: TrainedModelUri = Field(
        description="The location of the model: pvc://claim/path, hf://org/repo@revision, s3://bucket/folder, "
        "gs://bucket/folder, az://container/folder or oci://registry/repository@sha256:…. It answers with its own "
        "chat template."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class TokenPrices(StrictModel):
    """The prices of an endpoint."""

    input_price_per_million: DecimalString = Field(
        description='The price of a million tokens of requests, such as "0.15".'
    )
    output_price_per_million: DecimalString = Field(
        description='The price of a million tokens of answers, such as "0.60".'
    )
    currency: Currency = Field(description="The currency of the prices, such as EUR.")


class EndpointBudget(StrictModel):
    """Limits on the requests to an endpoint, over all attempts. No limit is ever exceeded."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.calls) || has(self.tokens) || has(self.amount)",
            "budget needs a limit: write calls, tokens or amount.",
        ),
    )

    calls: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None,
        description="The maximum number of requests. A run that needs more fails before the first one. A judge's "
        "question without a readable verdict is asked once more, if the budget covers it.",
    )
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = Field(
        None, description="The maximum number of tokens of requests and answers, as reported by the endpoint."
    )
    amount: PositiveDecimal | None = Field(
        None, description='The maximum cost by the prices of the endpoint, such as "5.00".'
    )


class EvaluatedEndpoint(ChatEndpoint):
    """A model behind an endpoint that serves the OpenAI API."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.budget) || !has(self.budget.amount) || has(self.prices)",
            "budget.amount needs prices: add prices to the endpoint, or limit calls or tokens.",
            lambda endpoint: endpoint.budget is None or not endpoint.budget.amount or bool(endpoint.prices),
            field=".budget",
        ),
    )

    prices: TokenPrices | None = Field(
        None, description="The prices of the endpoint. With them, status.cost tells what the answers cost."
    )
    budget: EndpointBudget | None = Field(
        None,
        description="Limits on spending. What they do not cover is not asked, and counted; gates on it are "
        "Inconclusive.",
    )


class AliasRef(StrictModel):
    """The version that an alias of an AdapterDeployment serves now."""

    name: ObjectName = Field(description="The name of the AdapterDeployment.")
    adapter: ItemName = Field(
        description="The name of the adapter (the alias). Its stable version at the start of the run is compared, by "
        "digest."
    )


class AnswersSide(StrictModel):
    """Answers of an earlier run: nothing is generated, the answers are scored anew."""

    uri: ValidationDataUri = Field(
        description="The location of the items.jsonl of an earlier run, as shown in its status.answers."
    )
    digest: DigestString = Field(description="The digest of that file.")
    side: ItemName = Field(
        "candidate",
        description="The model of that run whose answers are scored: candidate, baseline or a reference.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


_SOURCES = (
    "base",
    "fine_tune_job_ref",
    "uri",
    "model",
    "adapter_deployment_ref",
    "endpoint",
    "answers",
)
_SOURCE_WORDS = any_of(
    (
        "base: {} for the base model",
        "fineTuneJobRef: {name: …}",
        "uri and digest of an artifact",
        "model: {uri: …}",
        "adapterDeploymentRef: {name: …, adapter: …}",
        "endpoint: {url: …, model: …}",
        "answers: {uri: …, digest: …}",
    )
)


class ComparedModel(Prompting):
    """A model of the comparison, with its prompt settings."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(_SOURCES, f"Set exactly one source of the model: {_SOURCE_WORDS}."),
        DIGEST_WITH_URI,
        Rule(
            "!has(self.answers) || (!has(self.systemPrompt) && (!has(self.fewShot) || self.fewShot == 0) && "
            "!has(self.contextColumn) && !has(self.templateArguments))",
            "Stored answers were prompted when they were generated: leave out systemPrompt, fewShot, contextColumn and "
            "templateArguments.",
        ),
        Rule(
            "!has(self.checkpointStep) || has(self.fineTuneJobRef)",
            "checkpointStep belongs to fineTuneJobRef: name the job, or leave it out.",
        ),
        Rule(
            "!has(self.secretRef) || has(self.uri)",
            "secretRef is used for uri only: leave it out, or write it beside the location it is for.",
        ),
    )

    base: BaseModelSide | None = Field(None, description="The base model without an adapter: write base: {}.")
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="The FineTuneJob whose artifact is compared. The run waits until the job has succeeded.",
    )
    checkpoint_step: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="The step of one of the job's checkpoints, as listed in its status, instead of its artifact.",
    )
    uri: ArtifactUri | None = Field(
        None,
        description="The location of an artifact: pvc://claim/folder/sha256/…, s3://bucket/folder/sha256/…, "
        "gs://bucket/folder/sha256/…, az://container/folder/sha256/…, oci://registry/repository:sha256-… or "
        "hf://org/repo/sha256/…. A folder with the "
        "name checkpoint-<step> is a checkpoint of a job. Requires digest.",
    )
    digest: DigestString | None = Field(
        None, description="The digest of the artifact or checkpoint at uri, as in the status of its job."
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)
    model: ModelSide | None = Field(None, description="A whole model other than the base model of the run.")
    adapter_deployment_ref: AliasRef | None = Field(
        None, description="The version that an alias of an AdapterDeployment serves at the start of the run."
    )
    endpoint: EvaluatedEndpoint | None = Field(
        None, description="A model behind an endpoint that serves the OpenAI API, such as a hosted model."
    )
    answers: AnswersSide | None = Field(
        None, description="Answers of an earlier run, which are scored anew without generating again."
    )


class Candidate(ComparedModel):
    """The model that is evaluated."""


class Baseline(ComparedModel):
    """The model that the candidate is compared with."""


class ReferenceSide(ComparedModel):
    """An additional model that answers the same items. Its scores are reported, but no gate uses them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *ComparedModel.rules,
        Rule(
            "!(self.name in ['candidate', 'baseline'])",
            "The names candidate and baseline are reserved: choose another name.",
        ),
    )

    name: ItemName = Field(description="The name of the reference in status.sides, such as base.")
