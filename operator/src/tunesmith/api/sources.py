"""Where a FineTuneJob's model and rows come from, and the Secrets that open them."""

from pydantic import Field

from tunesmith_contract.run_config import DataFormat, Deduplicate, OnInvalidRow

from .common import FineTuneJobRef, SecretName, StrictModel
from .labels import ArgillaSource
from .rules import Rule, exactly_one
from .uris import TrainedDataUri, TrainedModelUri
from .values import Fraction

STORE_KEYS = (
    "Secret that opens it, read by the pods only. Keys by the kind of storage: hf:// `token`; s3:// "
    "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is not Amazon's, `AWS_ENDPOINT_URL`; gs:// "
    "`credentials.json`; oci:// `username` and `password`, or `.dockerconfigjson`."
)


class BaseModel(StrictModel):
    """The model that is tuned."""

    rules = (
        exactly_one(
            ("uri", "fine_tune_job_ref"),
            "Name the model in one way: uri: hf://org/repo@revision, or fineTuneJobRef: {name: …} to go on from "
            "an earlier job's artefact.",
        ),
    )

    uri: TrainedModelUri | None = Field(
        None,
        description="Where the model lies: pvc://claim/path for a folder in a claim, hf://org/repo@revision for "
        "the Hugging Face Hub, s3://bucket/folder, gs://bucket/folder, or oci://registry/repository@sha256:…. "
        "Without a revision, the one found at the start is kept and shown in status.",
    )
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="Instead of uri: go on from the artefact of an earlier FineTuneJob, on that job's base "
        "model. This job waits until that one has succeeded. An adapter goes on with the type, rank, alpha and "
        "targetModules that it has.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class ModelLocation(StrictModel):
    """A model by its address."""

    uri: TrainedModelUri = Field(description="Where the model lies.")


class TrainSource(StrictModel):
    """Rows of data, and the Secret that opens them."""

    rules = (
        exactly_one(
            ("uri", "argilla"),
            "Name the training rows in one way: uri for a file of them, or argilla: {url: …, dataset: …} for what "
            "people labelled.",
        ),
    )

    uri: TrainedDataUri | None = Field(
        None,
        description="Where the rows lie, one JSON object a line: pvc://claim/file.jsonl, "
        "configmap://name/key for small data, hf://org/repo/file@revision, s3://bucket/file.jsonl or "
        "gs://bucket/file.jsonl.",
    )
    argilla: ArgillaSource | None = Field(
        None, description="What people labelled on an Argilla server, pulled once when the job begins."
    )
    secret_ref: SecretName | None = Field(
        None,
        description=f"{STORE_KEYS} Absent: hf:// is opened with baseModel.secretRef. argilla: `ARGILLA_API_KEY`.",
    )


class Validation(StrictModel):
    """Rows held out of training, on which the loss is measured while training."""

    rules = (
        exactly_one(
            ("fraction", "uri"),
            'Name the validation rows in one way: fraction: "0.1", or uri for a set of their own.',
        ),
        Rule(
            "has(self.uri) || !has(self.secretRef)",
            "validation.secretRef opens validation.uri: rows that are held out of train need none. Leave it out.",
            lambda validation: validation.uri is not None or validation.secret_ref is None,
        ),
    )

    fraction: Fraction | None = Field(
        None,
        description='Share of the training rows that is held out, drawn with the seed, such as "0.1". "0": '
        "none.",
    )
    uri: TrainedDataUri | None = Field(
        None, description="Rows of their own, as in train. None of them is used for training."
    )
    secret_ref: SecretName | None = Field(
        None, description=f"{STORE_KEYS} Absent: hf:// is opened with baseModel.secretRef."
    )

    @property
    def is_none(self) -> bool:
        """Whether no rows are held out."""
        return self.uri is None and float(self.fraction or 0) == 0


class Dataset(StrictModel):
    """The rows to learn from, and what to do with bad and repeated ones."""

    rules = (
        Rule(
            "self.onInvalidRow == 'Drop' || !has(self.maxInvalidFraction)",
            "maxInvalidFraction has no effect with onInvalidRow: Fail. Leave it out, or write onInvalidRow: "
            "Drop.",
            lambda data: data.on_invalid_row is OnInvalidRow.DROP or data.max_invalid_fraction is None,
        ),
        Rule(
            "self.onInvalidRow == 'Fail' || has(self.maxInvalidFraction)",
            "onInvalidRow: Drop needs a limit: say how many bad rows are too many, such as "
            'maxInvalidFraction: "0.01".',
            lambda data: data.on_invalid_row is OnInvalidRow.FAIL or data.max_invalid_fraction is not None,
        ),
    )

    train: TrainSource = Field(description="The rows to learn from.")
    validation: Validation = Field(
        Validation(fraction="0.1"), description="Rows held out of training, on which the loss is measured."
    )
    format: DataFormat = Field(
        DataFormat.AUTO,
        description='How rows are written. Chat: {"messages": [{"role": …, "content": …}]}. '
        'PromptCompletion: {"prompt": …, "completion": …}. Preference: {"prompt": …, "chosen": …, '
        '"rejected": …}. UnpairedPreference: {"prompt": …, "completion": …, "label": true}. Prompt: {"prompt": …, '
        '"answer": …}, the answer being for rewards. Text: {"text": …}. Auto: seen from the first row.',
    )
    on_invalid_row: OnInvalidRow = Field(
        OnInvalidRow.FAIL,
        description="What a row that fails a check does. Fail: the job fails before it takes a GPU, with "
        "file, line and check. Drop: the row is left out and counted, up to maxInvalidFraction.",
    )
    max_invalid_fraction: Fraction | None = Field(
        None,
        description='With onInvalidRow: Drop: the share of rows above which the job fails, such as "0.01".',
    )
    deduplicate: Deduplicate = Field(
        Deduplicate.EXACT,
        description="Exact: rows that repeat an earlier one are left out of training and counted. None: all "
        "are used.",
    )
