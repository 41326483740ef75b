"""Sources of a FineTuneJob: the model and the rows, with the Secrets to read them."""

from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import MAX_TRAIN_URIS, Deduplicate, OnInvalidRow, PersonalData
from tunesmith_contract.sources import DataFormat
from tunesmith_contract.uris import names_one_file

from .common import FineTuneJobRef, SecretName, StrictModel
from .compute import DataCompute
from .generate import Generate
from .labels import ArgillaSource
from .rules import Rule, exactly_one, is_zero
from .template_arguments import TemplateSwitches
from .uris import TrainedDataUri, TrainedModelUri, ValidationDataUri
from .values import Fraction, MemberPath, Similarity

STORE_KEYS = (
    "The Secret with the credentials for uri. Only the pods read it. Its keys depend on the kind "
    "of storage. hf://: `token`. s3://: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for "
    "stores other than Amazon S3, `AWS_ENDPOINT_URL`. gs://: `credentials.json`. az://: "
    "`AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY`. oci://: "
    "`username` and `password`, or `.dockerconfigjson`."
)


class BaseModel(StrictModel):
    """The model to tune. Exactly one of uri and fineTuneJobRef must be set."""

    rules = (
        exactly_one(
            ("uri", "fine_tune_job_ref"),
            "Set exactly one base model: uri: hf://org/repo@revision, or fineTuneJobRef: {name: …} to "
            "continue from the artifact of an earlier job.",
        ),
    )

    uri: TrainedModelUri | None = Field(
        None,
        description="The location of the model: pvc://claim/path for a folder on a PersistentVolumeClaim, "
        "hf://org/repo@revision for a repository on the Hugging Face Hub, s3://bucket/folder, "
        "gs://bucket/folder, az://container/folder, or oci://registry/repository@sha256:…. If the revision is "
        "omitted, the "
        "revision found at the start is used throughout and shown in status.",
    )
    fine_tune_job_ref: FineTuneJobRef | None = Field(
        None,
        description="An earlier FineTuneJob to continue from, on its base model. This job waits until that job "
        "has succeeded. If its artifact is an adapter, training continues with the type, rank, alpha "
        "and targetModules of that adapter.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)


class ModelLocation(StrictModel):
    """The location of a model."""

    uri: TrainedModelUri = Field(description="The location of the model, in the forms of baseModel.uri.")


class TrainSource(StrictModel):
    """The location of the training rows, and the Secret to read them with."""

    rules = (
        exactly_one(
            ("uri", "uris", "argilla"),
            "Set exactly one source of rows: uri: pvc://claim/file.jsonl; uris: [pvc://claim/a.jsonl, …] "
            "for several files; or argilla: {url: …, dataset: …} for labeled records.",
        ),
    )

    uri: TrainedDataUri | None = Field(
        None,
        description="The location of the rows: pvc://claim/file.jsonl, hf://org/repo/file@revision, "
        "s3://bucket/file.jsonl, gs://bucket/file.jsonl, az://container/file.jsonl, or configmap://name/key for "
        "small data. All "
        "but configmap:// may name a folder, with a slash at its end (hf://org/repo/data/@revision), "
        "for all its files, or a pattern, such as s3://bucket/rows-*.parquet, for some of them. Files"
        " may be JSONL, JSON, CSV, TSV, Parquet, plain text or Markdown, and may be compressed.",
    )
    uris: Annotated[tuple[TrainedDataUri, ...], Field(min_length=1, max_length=MAX_TRAIN_URIS)] | None = (
        Field(
            None,
            description="Several locations, each in the forms of uri, read in this order. All must hold rows of one "
            "format and are read with the same Secret.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        )
    )
    argilla: ArgillaSource | None = Field(
        None,
        description="Records that people labeled on an Argilla server. They are pulled once, when the job begins.",
    )
    secret_ref: SecretName | None = Field(
        None,
        description=f"{STORE_KEYS} argilla: `ARGILLA_API_KEY`. If unset, hf:// is read with baseModel.secretRef.",
    )

    @property
    def locations(self) -> tuple[str, ...]:
        """All locations, in the order in which they are read."""
        return tuple(self.fields.values())

    @property
    def is_files(self) -> bool:
        """True if all locations are single files: no folder, no pattern, no Argilla dataset."""
        return bool(self.locations) and all(map(names_one_file, self.locations))

    @property
    def fields(self) -> dict[str, str]:
        """Locations by the field that names each: ``uri``, or ``uris[0]`` and so on."""
        if self.uri is not None:
            return {"uri": self.uri}
        return {f"uris[{index}]": uri for index, uri in enumerate(self.uris or ())}


class Validation(StrictModel):
    """Rows that are held out of training and on which the loss is measured.

    Exactly one of fraction and uri must be set.
    """

    rules = (
        exactly_one(
            ("fraction", "uri"),
            'Set exactly one source of validation rows: fraction: "0.1" of the training rows, or the uri '
            "of a separate file.",
        ),
        Rule(
            "has(self.uri) || !has(self.secretRef)",
            "validation.secretRef is used for validation.uri only: leave it out with fraction.",
        ),
        Rule(
            "!(has(self.groupField) || has(self.stratifyField)) || "
            f"(has(self.fraction) && !{is_zero('self.fraction')})",
            "groupField and stratifyField need a fraction of the training rows to hold out: write a "
            'fraction above 0, such as fraction: "0.1", or leave them out.',
        ),
        Rule(
            "!has(self.groupField) || !has(self.stratifyField) || self.groupField != self.stratifyField",
            "groupField and stratifyField name the same member: rows of one group stay together, so they "
            "can't be held out in proportion as well. Leave out one of the two.",
        ),
    )

    fraction: Fraction | None = Field(
        None,
        description='The share of the training rows that is held out, drawn with the seed, such as "0.1". "0" '
        "holds out none. A row always falls on the same side, even if other rows are added or "
        "removed.",
    )
    group_field: MemberPath | None = Field(
        None,
        description="A member of the rows (or a column) by which rows are grouped, such as customer or "
        "metadata.customer. All rows with the same value fall on the same side, so that no group is "
        "both trained and validated on. Used with fraction.",
    )
    stratify_field: MemberPath | None = Field(
        None,
        description="A member of the rows (or a column), such as label, each of whose values is held out in the "
        "same proportion, so that rare values are validated on as well. Used with fraction.",
    )
    uri: ValidationDataUri | None = Field(
        None,
        description="The location of a file with validation rows, instead of fraction. Training rows that are "
        "also in this file are dropped and counted as leaked.",
    )
    secret_ref: SecretName | None = Field(
        None, description=f"{STORE_KEYS} If unset, hf:// is read with baseModel.secretRef."
    )


class Dataset(StrictModel):
    """The training and validation rows, and how they are cleaned."""

    rules = (
        Rule(
            "has(self.train) || has(self.generate)",
            "dataset needs rows: set train: {uri: pvc://data/train.jsonl}, or generate for rows from a "
            "teacher model, or both.",
            lambda data: data.train is not None or data.generate is not None,
        ),
        Rule(
            "self.onInvalidRow == 'Drop' || !has(self.maxInvalidFraction)",
            "maxInvalidFraction has no effect with onInvalidRow: Fail. Leave it out, or write onInvalidRow: "
            "Drop.",
        ),
        Rule(
            "self.onInvalidRow == 'Fail' || has(self.maxInvalidFraction)",
            'onInvalidRow: Drop needs a limit of invalid rows, such as maxInvalidFraction: "0.01".',
        ),
        Rule(
            "!has(self.nearThreshold) || self.deduplicate == 'Near'",
            "nearThreshold has an effect only with deduplicate: Near: write that, or leave nearThreshold "
            "out.",
        ),
    )

    train: TrainSource | None = Field(
        None,
        description="The location of the training rows. It may be omitted if generate is set; then the generated "
        "rows are all training rows.",
    )
    generate: Generate | None = Field(
        None,
        description="Rows that a teacher model generates before the data is prepared, in addition to train or "
        "instead of it.",
    )
    validation: Validation = Field(
        Validation(fraction="0.1"),
        description="Rows that are held out of training and on which the loss is measured.",
    )
    format: DataFormat = Field(
        DataFormat.AUTO,
        description='The format of the rows. Chat: {"messages": [{"role": …, "content": …}]}. PromptCompletion: '
        '{"prompt": …, "completion": …}. Preference: {"prompt": …, "chosen": …, "rejected": …}. '
        'UnpairedPreference: {"prompt": …, "completion": …, "label": true}. Prompt: {"prompt": …, '
        '"answer": …}, with an optional answer for rewards. Text: {"text": …}. ShareGPT: '
        '{"conversations": [{"from": …, "value": …}]}. Alpaca: {"instruction": …, "input": …, '
        '"output": …}. Auto: detected from the first row.',
    )
    on_invalid_row: OnInvalidRow = Field(
        OnInvalidRow.FAIL,
        description="The handling of a row that fails a check. Fail: the job fails before it requests a GPU, and "
        "names file, line and check. Drop: the row is dropped and counted, up to maxInvalidFraction.",
    )
    max_invalid_fraction: Fraction | None = Field(
        None,
        description='The largest share of invalid rows with onInvalidRow: Drop, such as "0.01". The job fails if '
        "it is exceeded.",
    )
    deduplicate: Deduplicate = Field(
        Deduplicate.EXACT,
        description="The removal of duplicates. Exact: rows that repeat an earlier row are dropped and counted. "
        "Near: rows that are nearly the same as an earlier row, such as with another date, are "
        "dropped as well. None: duplicates are kept. In all cases, training rows that are also in the"
        " validation or evaluation data are dropped.",
    )
    near_threshold: Similarity | None = Field(
        None,
        description="The similarity from which a row counts as a near duplicate, with deduplicate: Near. It is "
        'the Jaccard similarity of the short passages of two rows, from "0.5" to "1". If unset, it is'
        " 0.8.",
    )
    personal_data: PersonalData = Field(
        PersonalData.REPORT,
        description="The handling of email addresses, phone numbers, card numbers and keys in the rows. Report: "
        "they are counted, and the report names the rows. Mask: each is replaced by a placeholder "
        "before training. Ignore: rows are not searched for them.",
    )
    compute: DataCompute | None = Field(
        None,
        description="Compute resources of the pods that generate and prepare the rows. If unset, they follow from "
        "compute.",
    )
    template_arguments: TemplateSwitches | None = Field(
        None,
        description="Arguments of the chat template with which rows are rendered, with values in JSON, such as "
        'enable_thinking: "false". The artifact keeps them: evaluations and the serving endpoint ask it with the same.',
    )
