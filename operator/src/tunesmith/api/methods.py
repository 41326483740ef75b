"""Training methods, one member of ``Method`` each."""

from pydantic import Field

from tunesmith_contract.methods import DPOLoss, GRPOLoss, KTOLoss

from .common import SecretName, StrictModel
from .endpoints import ChatEndpoint
from .rewards import Reward, Rewards
from .rules import Rule, exactly_one, is_zero
from .sources import STORE_KEYS
from .uris import TrainedModelUri
from .values import DecimalString, HalfFraction, PositiveDecimal

_MAX_LENGTH = (
    "The maximum length of a row in tokens, prompt and answer together. Longer rows are cut off. "
    "A larger value takes more GPU memory."
)
_PACKING = (
    "If true, several short rows are packed into one sequence of maxLength, which is faster for "
    "short rows; batchSize then counts sequences. If unset, rows are packed on GPUs if batchSize "
    "is Auto; status.resolved shows the choice."
)


def _max_length() -> int:
    field: int = Field(1024, ge=8, le=1_048_576, description=_MAX_LENGTH)
    return field


_ROOM_FOR_PROMPT = Rule(
    "self.maxCompletionLength < self.maxLength",
    "maxCompletionLength leaves no room for the prompt within maxLength: write a smaller one, or a larger maxLength.",
    field=".maxCompletionLength",
)


class SFT(StrictModel):
    """Supervised fine-tuning: the model learns to give the answers in the rows."""

    assistant_only_loss: bool = Field(
        True,
        description="If true, the model learns only from the assistant's words and not from the questions. If "
        "false, it learns from every token of the row.",
    )
    packing: bool | None = Field(None, description=_PACKING)
    max_length: int = _max_length()


class Pretraining(StrictModel):
    """Continued pretraining: the model learns every token of plain text."""

    packing: bool | None = Field(None, description=_PACKING)
    max_length: int = _max_length()


class DPO(StrictModel):
    """Direct preference optimization: the model learns to prefer the chosen answer of a pair to the rejected one."""

    rules = (
        Rule(
            f"self.loss in ['Robust', 'EXOPair', 'AOT'] || {is_zero('self.labelSmoothing')}",
            "labelSmoothing has no effect with this loss: leave it out, or write loss: Robust, EXOPair or AOT.",
        ),
        Rule(
            f"self.loss != 'EXOPair' || !{is_zero('self.labelSmoothing')}",
            'loss: EXOPair needs labelSmoothing above 0, such as labelSmoothing: "0.001".',
        ),
    )

    beta: PositiveDecimal = Field(
        "0.1",
        description='The strength with which the model is kept close to its start, such as "0.1". A larger value '
        "keeps it closer.",
    )
    loss: DPOLoss = Field(
        DPOLoss.SIGMOID,
        description="The variant of the loss. Sigmoid: the original DPO loss. IPO and Hinge: less confident on "
        "clear pairs. Robust: some pairs may be swapped, at the rate labelSmoothing. The other "
        "variants are those of TRL's DPOTrainer.",
    )
    label_smoothing: HalfFraction = Field(
        "0",
        description='The share of pairs that may be swapped, such as "0.1". Used with loss: Robust, EXOPair or '
        "AOT.",
    )
    max_length: int = _max_length()


class KTO(StrictModel):
    """Kahneman-Tversky optimization: the model learns from single answers that are labeled good or bad."""

    beta: PositiveDecimal = Field(
        "0.1",
        description='The strength with which the model is kept close to its start, such as "0.1". A larger value '
        "keeps it closer.",
    )
    loss: KTOLoss = Field(
        KTOLoss.KTO,
        description="The variant of the loss. KTO: the original, which compares each row with other rows of its "
        "micro-batch. APOZeroUnpaired: without that comparison.",
    )
    desirable_weight: DecimalString = Field(
        "1",
        description="The weight of good answers. Raise it if they are few: good rows times desirableWeight should"
        " be 1 to 1.33 times bad rows times undesirableWeight.",
    )
    undesirable_weight: DecimalString = Field("1", description="The weight of bad answers.")
    max_length: int = _max_length()


class RewardModel(StrictModel):
    """Reward modeling: the model learns to score chosen answers higher than rejected ones.

    Use the result in rloo or grpo.
    """

    center_rewards_coefficient: DecimalString | None = Field(
        None,
        description='The strength with which scores are pulled towards 0, such as "0.01". If unset, they may '
        "drift.",
    )
    max_length: int = _max_length()


class Online(StrictModel):
    """Settings of methods that learn from answers that the model generates itself."""

    rules = (_ROOM_FOR_PROMPT,)

    rewards: Rewards = Field(
        description="The rewards. The model learns to raise their weighted sum. Exactly one member of each reward"
        " besides name and weight must be set."
    )
    generations: int = Field(
        8,
        ge=2,
        le=256,
        description="The number of answers to each prompt. They are compared with each other.",
    )
    temperature: PositiveDecimal = Field(
        "1",
        description='The sampling temperature of the answers, such as "0.7". If it is too low, all answers are '
        "the same and nothing can be learned.",
    )
    max_completion_length: int = Field(
        256,
        ge=1,
        le=1_048_576,
        description="The maximum length of an answer in tokens. Longer answers are cut off.",
    )
    max_length: int = _max_length()


class GRPO(Online):
    """Group relative policy optimization: the model learns from the better of several answers to a prompt."""

    beta: DecimalString = Field(
        "0",
        description='The strength with which the model is kept close to its start. "0" disables this and saves '
        "the memory of a reference model.",
    )
    loss: GRPOLoss = Field(
        GRPOLoss.DAPO,
        description="The weighting of answers of different lengths. DAPO: each token counts the same. GRPO: each "
        "answer counts the same. BNPO and DrGRPO: as in their papers.",
    )


class RLOO(Online):
    """REINFORCE leave-one-out: the model generates several answers to a prompt and compares each with the others' mean.

    Together with a reward model it is the second half of RLHF.
    """

    beta: DecimalString = Field(
        "0.05",
        description='The strength with which the model is kept close to its start, such as "0.05". A larger value'
        " keeps it closer.",
    )


class TeacherEndpoint(ChatEndpoint):
    """A teacher model behind an endpoint that serves the OpenAI API."""

    max_tokens: int = Field(
        512,
        ge=1,
        le=1_048_576,
        description="The maximum length of an answer in tokens. Longer answers are cut off.",
    )
    temperature: DecimalString = Field(
        "0", description='The sampling temperature of the teacher. With "0", it gives the most likely answer.'
    )


class Teacher(StrictModel):
    """The teacher model of a distillation. Exactly one of uri and endpoint must be set."""

    rules = (
        exactly_one(
            ("uri", "endpoint"),
            "Set exactly one of uri, to learn from the teacher's weights, and endpoint: {url: …, model: "
            "…}, to learn from its answers.",
        ),
        Rule(
            "has(self.uri) || !has(self.secretRef)",
            "teacher.secretRef is used for teacher.uri only: for an endpoint, write endpoint: {secretRef:"
            " …}.",
        ),
    )

    uri: TrainedModelUri | None = Field(
        None,
        description="The weights of a larger model with the same vocabulary. The tuned model generates answers "
        "and learns from the teacher's probability of each token. Both models must fit into GPU "
        "memory.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)
    endpoint: TeacherEndpoint | None = Field(
        None, description="A model behind an endpoint. It answers each prompt once, before training."
    )


class Distillation(StrictModel):
    """Distillation: the model learns from a larger model, by its answers or by its weights."""

    rules = (_ROOM_FOR_PROMPT,)

    teacher: Teacher = Field(description="The teacher model. Exactly one of uri and endpoint must be set.")
    temperature: PositiveDecimal = Field(
        "1", description="The sampling temperature of the tuned model's own answers, with teacher.uri."
    )
    max_completion_length: int = Field(
        256,
        ge=1,
        le=1_048_576,
        description="The maximum length of the tuned model's answers in tokens. Longer answers are cut off.",
    )
    max_length: int = _max_length()


MEMBERS = ("sft", "dpo", "kto", "grpo", "rloo", "reward", "pretraining", "distillation")
_NAMES = {"reward": "Reward", "pretraining": "Pretraining", "distillation": "Distillation"}


class Method(StrictModel):
    """The training method. Exactly one member must be set; its name is the method."""

    rules = (
        exactly_one(
            MEMBERS,
            "Set exactly one method: sft, dpo, kto, grpo, rloo, reward, pretraining or distillation, such"
            " as method: {sft: {}} for supervised fine-tuning.",
        ),
    )

    sft: SFT | None = Field(
        None,
        description="Supervised fine-tuning: rows hold questions and the answers to learn. Write `sft: {}` for "
        "the defaults.",
    )
    dpo: DPO | None = Field(
        None,
        description="Preference learning: rows hold a prompt, a chosen and a rejected answer. Write `dpo: {}` for"
        " the defaults.",
    )
    kto: KTO | None = Field(
        None,
        description="Learning from labeled answers: rows hold a prompt, an answer and whether it is good. Write "
        "`kto: {}` for the defaults.",
    )
    grpo: GRPO | None = Field(
        None,
        description="Reinforcement learning: rows hold prompts; the model generates answers and learns from their"
        " rewards.",
    )
    rloo: RLOO | None = Field(
        None,
        description="Reinforcement learning as grpo, with another estimator. It is the usual choice with a reward"
        " model (RLHF).",
    )
    reward: RewardModel | None = Field(
        None,
        description="Reward modeling: rows hold a prompt, a chosen and a rejected answer. Write `reward: {}` for "
        "the defaults.",
    )
    pretraining: Pretraining | None = Field(
        None, description="Continued pretraining: rows hold plain text, and every token is learned."
    )
    distillation: Distillation | None = Field(
        None, description="Distillation: rows hold prompts, and the model learns from a larger model."
    )

    @property
    def key(self) -> str:
        """Name of the member that is set, such as ``sft``."""
        return next(name for name in MEMBERS if getattr(self, name) is not None)

    @property
    def name(self) -> str:
        """Name of the method for people, such as ``SFT``."""
        return _NAMES.get(self.key, self.key.upper())

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """Rewards of an online method, or none."""
        online = self.grpo or self.rloo
        return online.rewards if online else ()

    @property
    def packing(self) -> bool | None:
        """Setting of ``packing``, for methods that have it."""
        packed = self.sft or self.pretraining
        return packed.packing if packed else None
