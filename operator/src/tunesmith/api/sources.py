"""Where a FineTuneJob's model and rows come from, and the Secrets that open them."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import (
    MAX_TRAIN_URIS,
    DataFormat,
    Deduplicate,
    OnInvalidRow,
    PersonalData,
)
from tunesmith_contract.uris import names_one_file

from .common import FineTuneJobRef, SecretName, StrictModel
from .generate import Generate
from .labels import ArgillaSource
from .rules import Rule, exactly_one, is_zero
from .uris import TrainedDataUri, TrainedModelUri, ValidationDataUri
from .values import Fraction, MemberPath, Similarity

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
    """Rows of data, in one place or in several, and the Secret that opens them."""

    rules = (
        exactly_one(
            ("uri", "uris", "argilla"),
            "Name the rows in one way: uri: pvc://claim/file.jsonl; uris: [pvc://claim/a.jsonl, …] for several; or "
            "argilla: {url: …, dataset: …} for what people labelled.",
        ),
    )

    uri: TrainedDataUri | None = Field(
        None,
        description="Where the rows lie: pvc://claim/file.jsonl, hf://org/repo/file@revision, s3://bucket/file.jsonl, "
        "gs://bucket/file.jsonl, or configmap://name/key for small data. All but the last may name a folder, with a "
        "slash at its end (hf://org/repo/data/@revision), for all its files, or a pattern, such as "
        "s3://bucket/rows-*.parquet, for some. A file is JSONL, JSON, CSV, TSV, Parquet, plain text or Markdown, "
        "compressed or not.",
    )
    uris: Annotated[tuple[TrainedDataUri, ...], Field(min_length=1, max_length=MAX_TRAIN_URIS)] | None = (
        Field(
            None,
            description="Instead of uri: several places, each as uri names one, read in this order. All hold rows of "
            "one format and are opened with the same Secret.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        )
    )
    argilla: ArgillaSource | None = Field(
        None, description="What people labelled on an Argilla server, pulled once when the job begins."
    )
    secret_ref: SecretName | None = Field(
        None,
        description=f"{STORE_KEYS} Absent: hf:// is opened with baseModel.secretRef. argilla: `ARGILLA_API_KEY`.",
    )

    @property
    def locations(self) -> tuple[str, ...]:
        """All places, in the order in which they are read."""
        return tuple(self.fields.values())

    @property
    def is_files(self) -> bool:
        """Whether the rows lie in files that are named one by one: no folder, no pattern, nothing pulled."""
        return bool(self.locations) and all(map(names_one_file, self.locations))

    @property
    def fields(self) -> dict[str, str]:
        """All places by the member that names each: ``uri``, or ``uris[0]`` and so on."""
        if self.uri is not None:
            return {"uri": self.uri}
        return {f"uris[{index}]": uri for index, uri in enumerate(self.uris or ())}


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
        Rule(
            "!(has(self.groupField) || has(self.stratifyField)) || "
            f"(has(self.fraction) && !{is_zero('self.fraction')})",
            "groupField and stratifyField say how rows are held out of train: write a fraction above 0 with them, such "
            'as fraction: "0.1", or leave them out.',
            lambda validation: (
                (validation.group_field is None and validation.stratify_field is None)
                or float(validation.fraction or 0) > 0
            ),
        ),
        Rule(
            "!has(self.groupField) || !has(self.stratifyField) || self.groupField != self.stratifyField",
            "groupField and stratifyField name the same member: rows of one group stay on one side, so they can't be "
            "held out in proportion as well. Leave one of the two out.",
            lambda validation: (
                validation.group_field is None or validation.group_field != validation.stratify_field
            ),
        ),
    )

    fraction: Fraction | None = Field(
        None,
        description='Share of the training rows that is held out, drawn with the seed, such as "0.1". "0": '
        "none. The same row always falls on the same side, whatever other rows come and go.",
    )
    group_field: MemberPath | None = Field(
        None,
        description="With fraction: a member of the rows, or a column, such as customer or metadata.customer. Rows "
        "that have the same value there stay on one side, so that nothing of a group is known before it is "
        "validated on.",
    )
    stratify_field: MemberPath | None = Field(
        None,
        description="With fraction: a member of the rows, or a column, such as label. Each of its values is held out "
        "in the same proportion, so that rare ones are validated on too.",
    )
    uri: ValidationDataUri | None = Field(
        None,
        description="Instead of fraction: a file of rows of their own. None of them is used for training: rows of "
        "train that are among them are left out, and counted as leaked.",
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
            "has(self.train) || has(self.generate)",
            "Say where the rows come from: train: {uri: pvc://data/train.jsonl}, or generate for rows that a teacher "
            "makes, or both.",
            lambda data: data.train is not None or data.generate is not None,
        ),
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
        Rule(
            "!has(self.nearThreshold) || self.deduplicate == 'Near'",
            "nearThreshold says which rows are nearly the same: write deduplicate: Near with it, or leave it out.",
            lambda data: data.near_threshold is None or data.deduplicate is Deduplicate.NEAR,
        ),
    )

    train: TrainSource | None = Field(
        None, description="The rows to learn from. Absent: those that generate makes are all."
    )
    generate: Generate | None = Field(
        None,
        description="Rows that a teacher behind an endpoint makes before the data is prepared: beside train, or "
        "instead of it.",
    )
    validation: Validation = Field(
        Validation(fraction="0.1"), description="Rows held out of training, on which the loss is measured."
    )
    format: DataFormat = Field(
        DataFormat.AUTO,
        description='How rows are written. Chat: {"messages": [{"role": …, "content": …}]}. '
        'PromptCompletion: {"prompt": …, "completion": …}. Preference: {"prompt": …, "chosen": …, '
        '"rejected": …}. UnpairedPreference: {"prompt": …, "completion": …, "label": true}. Prompt: {"prompt": …, '
        '"answer": …}, the answer being for rewards. Text: {"text": …}. ShareGPT: {"conversations": [{"from": …, '
        '"value": …}]}. Alpaca: {"instruction": …, "input": …, "output": …}. Auto: seen from the first row.',
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
        description="Exact: rows that repeat an earlier one are left out of training and counted. Near: so are rows "
        "that are nearly the same, such as with another date in them. None: repeated rows are used. Whichever it is: "
        "rows that the validation rows or the data of evaluation hold too are left out of training.",
    )
    near_threshold: Similarity | None = Field(
        None,
        description="With deduplicate: Near: how alike two rows are from which on the later one is left out, by the "
        'share of their short passages that they have in common (Jaccard similarity), from "0.5" to "1". Absent: 0.8.',
    )
    personal_data: PersonalData = Field(
        PersonalData.REPORT,
        description="What is done about addresses, phone numbers, card numbers and keys in the rows. Report: they are "
        "counted, and the rows are named in the report. Mask: a placeholder takes the place of each before anything "
        "is learned from it. Ignore: nobody looks.",
    )
