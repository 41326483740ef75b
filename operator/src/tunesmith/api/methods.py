"""How a model learns: one member per method."""

from pydantic import Field

from tunesmith_contract.methods import DPOLoss, GRPOLoss, KTOLoss

from .common import SecretName, StrictModel
from .endpoints import ChatEndpoint
from .rewards import Reward, Rewards
from .rules import Rule, exactly_one, is_zero
from .sources import STORE_KEYS
from .uris import TrainedModelUri
from .values import DecimalString, HalfFraction, PositiveDecimal

_MAX_LENGTH = "Where a row is cut off, in tokens, prompt and answer together. Memory grows with it."
_PACKING = (
    "Put several short rows into one sequence of maxLength: faster where rows are short; batchSize then counts "
    "sequences. Absent: Auto, which packs on GPUs where batchSize is Auto too; status.resolved shows it."
)
_SMOOTHED = frozenset({DPOLoss.ROBUST, DPOLoss.EXO_PAIR, DPOLoss.AOT})


def _max_length() -> int:
    found: int = Field(1024, ge=8, le=1_048_576, description=_MAX_LENGTH)
    return found


_ROOM_FOR_PROMPT = Rule(
    "self.maxCompletionLength < self.maxLength",
    "maxCompletionLength leaves no room for the prompt within maxLength: write a smaller one, or a larger maxLength.",
    lambda method: method.max_completion_length < method.max_length,
    ".maxCompletionLength",
)


class SFT(StrictModel):
    """Supervised fine-tuning: learn to give the answers in the rows."""

    assistant_only_loss: bool = Field(
        True,
        description="Learn from the assistant's words only, not from the questions. False: from every token "
        "of the row.",
    )
    packing: bool | None = Field(None, description=_PACKING)
    max_length: int = _max_length()


class Pretraining(StrictModel):
    """Continued pre-training: learn every token of plain text."""

    packing: bool | None = Field(None, description=_PACKING)
    max_length: int = _max_length()


class DPO(StrictModel):
    """Direct preference optimisation: learn to prefer the chosen answer of a pair to the rejected one."""

    rules = (
        Rule(
            f"self.loss in ['Robust', 'EXOPair', 'AOT'] || {is_zero('self.labelSmoothing')}",
            "labelSmoothing has no effect with this loss: leave it out, or write loss: Robust, EXOPair or AOT.",
            lambda dpo: dpo.loss in _SMOOTHED or float(dpo.label_smoothing) == 0,
        ),
        Rule(
            f"self.loss != 'EXOPair' || !{is_zero('self.labelSmoothing')}",
            'loss: EXOPair needs labelSmoothing above 0, such as labelSmoothing: "0.001".',
            lambda dpo: dpo.loss is not DPOLoss.EXO_PAIR or float(dpo.label_smoothing) > 0,
        ),
    )

    beta: PositiveDecimal = Field(
        "0.1", description='How close the model stays to where it began. Larger: closer. Such as "0.1".'
    )
    loss: DPOLoss = Field(
        DPOLoss.SIGMOID,
        description="Variant of the loss. Sigmoid: the original. IPO and Hinge: less certain of clear pairs. "
        "Robust: some pairs may be the wrong way round (labelSmoothing: how many). The rest as TRL has them.",
    )
    label_smoothing: HalfFraction = Field(
        "0",
        description="Share of pairs that may be the wrong way round, with loss: Robust, EXOPair or AOT. Such as "
        '"0.1".',
    )
    max_length: int = _max_length()


class KTO(StrictModel):
    """Kahneman-Tversky optimisation: learn from single answers that somebody called good or bad."""

    beta: PositiveDecimal = Field(
        "0.1", description='How close the model stays to where it began. Larger: closer. Such as "0.1".'
    )
    loss: KTOLoss = Field(
        KTOLoss.KTO,
        description="Variant of the loss. KTO: the original. APOZeroUnpaired: without its comparison with other "
        "rows.",
    )
    desirable_weight: DecimalString = Field(
        "1",
        description="Weight of good answers. Raise it where they are few: good rows times this should be "
        "1 to 1.33 times bad rows times theirs.",
    )
    undesirable_weight: DecimalString = Field("1", description="Weight of bad answers.")
    max_length: int = _max_length()


class RewardModel(StrictModel):
    """A reward model: learn to give chosen answers a larger number than rejected ones. rloo and grpo use it."""

    center_rewards_coefficient: DecimalString | None = Field(
        None, description='Pulls the numbers towards 0, such as "0.01". Absent: they may drift.'
    )
    max_length: int = _max_length()


class Online(StrictModel):
    """What methods have in common that learn from answers they make themselves."""

    rules = (_ROOM_FOR_PROMPT,)

    rewards: Rewards = Field(
        description="What makes an answer good. The weighted sum of all is what the model learns to raise. "
        "Exactly one member of each beside name and weight says what it is."
    )
    generations: int = Field(
        8, ge=2, le=256, description="Answers to each prompt; they are compared with each other."
    )
    temperature: PositiveDecimal = Field(
        "1", description='How varied the answers are, such as "0.7". Too little, and all are the same.'
    )
    max_completion_length: int = Field(
        256, ge=1, le=1_048_576, description="Where an answer is cut off, in tokens."
    )
    max_length: int = _max_length()


class GRPO(Online):
    """Group relative policy optimisation: make several answers to a prompt, and learn from those above average."""

    beta: DecimalString = Field(
        "0", description='How close the model stays to where it began. "0": not held, which saves memory.'
    )
    loss: GRPOLoss = Field(
        GRPOLoss.DAPO,
        description="How answers of different lengths count. DAPO: each token alike. GRPO: each answer alike. "
        "BNPO and DrGRPO: as in their papers.",
    )


class RLOO(Online):
    """REINFORCE leave-one-out: make several answers to a prompt, and compare each with the mean of the others.

    With a reward model it is the second half of RLHF.
    """

    beta: DecimalString = Field(
        "0.05", description='How close the model stays to where it began. Larger: closer. Such as "0.05".'
    )


class TeacherEndpoint(ChatEndpoint):
    """A teacher behind an endpoint that speaks the OpenAI API."""

    max_tokens: int = Field(
        512, ge=1, le=1_048_576, description="Where an answer of the teacher is cut off, in tokens."
    )
    temperature: DecimalString = Field("0", description='How varied its answers are. "0": the likeliest.')


class Teacher(StrictModel):
    """Who is learned from."""

    rules = (
        exactly_one(
            ("uri", "endpoint"),
            "Name the teacher in one way: uri for its weights, or endpoint: {url: …, model: …} for its answers.",
        ),
        Rule(
            "has(self.uri) || !has(self.secretRef)",
            "teacher.secretRef opens teacher.uri: for an endpoint, write endpoint: {secretRef: …}.",
            lambda teacher: teacher.uri is not None or teacher.secret_ref is None,
        ),
    )

    uri: TrainedModelUri | None = Field(
        None,
        description="Weights of a larger model with the same vocabulary: the model answers, and learns from the "
        "teacher's opinion of each token. Both have to fit into memory.",
    )
    secret_ref: SecretName | None = Field(None, description=STORE_KEYS)
    endpoint: TeacherEndpoint | None = Field(
        None, description="A model behind an endpoint: it answers each prompt before training, once."
    )


class Distillation(StrictModel):
    """Distillation: learn from a larger model, from its answers or from its weights."""

    rules = (_ROOM_FOR_PROMPT,)

    teacher: Teacher = Field(description="Who is learned from: exactly one of uri and endpoint.")
    temperature: PositiveDecimal = Field(
        "1", description="How varied the model's own answers are, with teacher.uri."
    )
    max_completion_length: int = Field(
        256, ge=1, le=1_048_576, description="Where an answer of the model is cut off, in tokens."
    )
    max_length: int = _max_length()


MEMBERS = ("sft", "dpo", "kto", "grpo", "rloo", "reward", "pretraining", "distillation")
_NAMES = {"reward": "Reward", "pretraining": "Pretraining", "distillation": "Distillation"}


class Method(StrictModel):
    """How the model learns. Exactly one member; the member's name is the method."""

    rules = (
        exactly_one(
            MEMBERS,
            "Choose one method: sft, dpo, kto, grpo, rloo, reward, pretraining or distillation, such as method: "
            "{sft: {}} for supervised fine-tuning.",
        ),
    )

    sft: SFT | None = Field(
        None,
        description="Supervised fine-tuning: rows hold questions and the answers to give. `sft: {}` takes "
        "the defaults.",
    )
    dpo: DPO | None = Field(
        None,
        description="Preferences: rows hold a prompt, a chosen and a rejected answer. `dpo: {}` takes the "
        "defaults.",
    )
    kto: KTO | None = Field(
        None,
        description="Judged answers: rows hold a prompt, an answer and whether it is good. `kto: {}` takes the "
        "defaults.",
    )
    grpo: GRPO | None = Field(
        None,
        description="Rewards: rows hold prompts; the model answers, and learns from what your rewards say of "
        "its answers.",
    )
    rloo: RLOO | None = Field(
        None,
        description="Rewards, as grpo, by another estimate: the usual choice with a reward model (RLHF).",
    )
    reward: RewardModel | None = Field(
        None,
        description="A reward model from rows with a chosen and a rejected answer. `reward: {}` takes the "
        "defaults.",
    )
    pretraining: Pretraining | None = Field(
        None, description="Plain text: rows hold text to go on from, every token is learned."
    )
    distillation: Distillation | None = Field(
        None, description="A teacher: rows hold prompts; the model learns from a larger one."
    )

    @property
    def key(self) -> str:
        """The member that is set, such as ``sft``."""
        return next(name for name in MEMBERS if getattr(self, name) is not None)

    @property
    def name(self) -> str:
        """The chosen method, as people write it."""
        return _NAMES.get(self.key, self.key.upper())

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """The rewards of a method that has some."""
        online = self.grpo or self.rloo
        return online.rewards if online else ()

    @property
    def packing(self) -> bool | None:
        """Whether rows are packed, where the method can and it is written."""
        packed = self.sft or self.pretraining
        return packed.packing if packed else None
