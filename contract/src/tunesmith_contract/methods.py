"""Training methods: one member of ``Method`` is set, and its name is the method."""

from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from .base import Digest, Document

Name = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Length = Annotated[int, Field(ge=8)]

MAX_REWARDS = 8

Chosen = TypeVar("Chosen", bound=Document)


class DPOLoss(StrEnum):
    """Variants of the preference loss, as TRL's ``loss_type`` knows them."""

    SIGMOID = "Sigmoid"
    HINGE = "Hinge"
    IPO = "IPO"
    ROBUST = "Robust"
    EXO_PAIR = "EXOPair"
    NCA_PAIR = "NCAPair"
    BCO_PAIR = "BCOPair"
    SPPO_HARD = "SPPOHard"
    AOT = "AOT"
    APO_ZERO = "APOZero"
    APO_DOWN = "APODown"
    DISCOPOP = "DiscoPOP"
    SIGMOID_NORM = "SigmoidNorm"


class KTOLoss(StrEnum):
    """Variants of the unpaired preference loss."""

    KTO = "KTO"
    APO_ZERO_UNPAIRED = "APOZeroUnpaired"


class GRPOLoss(StrEnum):
    """Variants of the loss from group-relative advantages."""

    DAPO = "DAPO"
    GRPO = "GRPO"
    BNPO = "BNPO"
    DR_GRPO = "DrGRPO"


class SFTMethod(Document):
    """Supervised fine-tuning on given answers."""

    assistant_only_loss: bool = True
    packing: bool = False
    max_length: Length = 1024


class PretrainingMethod(Document):
    """Continued pre-training: the loss of every token of plain text."""

    packing: bool = True
    max_length: Length = 1024


class DPOMethod(Document):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

    beta: float = Field(0.1, gt=0)
    loss: DPOLoss = DPOLoss.SIGMOID
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    max_length: Length = 1024


class KTOMethod(Document):
    """Kahneman-Tversky optimization on single judged answers (Ethayarajh et al. 2024, arXiv:2402.01306)."""

    beta: float = Field(0.1, gt=0)
    loss: KTOLoss = KTOLoss.KTO
    desirable_weight: float = Field(1.0, ge=0)
    undesirable_weight: float = Field(1.0, ge=0)
    max_length: Length = 1024


class RewardMethod(Document):
    """Reward modeling: a number per answer, learned from pairs (Bradley-Terry)."""

    center_rewards_coefficient: float | None = Field(None, ge=0)
    max_length: Length = 1024


class ExactReward(Document):
    """1 when the answer is the row's ``answer``, spaces around it aside."""

    ignore_case: bool = False


class RegexReward(Document):
    """1 when the pattern is found in the answer."""

    pattern: str = Field(min_length=1, max_length=1024)


class JSONSchemaReward(Document):
    """1 when the answer is JSON that the schema (JSON text) accepts."""

    json_schema: str = Field(min_length=2, max_length=16384)


class NumericReward(Document):
    """1 when the last number of the answer is that of the row's ``answer``, within a tolerance."""

    tolerance: float = Field(0.0, ge=0)


class LengthReward(Document):
    """1 between ``min_tokens`` and ``max_tokens``, falling linearly to 0 at none, and at twice the upper limit."""

    min_tokens: int = Field(0, ge=0)
    max_tokens: int = Field(ge=1)


class ModelReward(Document):
    """Number that a reward model gives; ``base_model`` is the model that its artifact was trained on."""

    uri: str
    digest: Digest | None = None
    base_model: str | None = None


class EndpointReward(Document):
    """Numbers from an HTTP endpoint: ``POST {"prompts", "completions", "answers"}`` -> ``{"rewards": [...]}``."""

    url: str
    timeout_seconds: int = Field(30, ge=1)


class FunctionReward(Document):
    """A function in the image, ``package.module:function``, with the signature of TRL's reward functions."""

    name: str


class Reward(Document):
    """Reward of an answer: exactly one member beside ``name`` and ``weight``."""

    name: Name
    weight: float = 1.0
    exact: ExactReward | None = None
    regex: RegexReward | None = None
    json_schema: JSONSchemaReward | None = None
    numeric: NumericReward | None = None
    length: LengthReward | None = None
    model: ModelReward | None = None
    endpoint: EndpointReward | None = None
    function: FunctionReward | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        return _exactly_one(self, frozenset({"name", "weight"}))


class _OnlineMethod(Document):
    """Common settings of methods that learn from answers they generate themselves."""

    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=MAX_REWARDS)
    generations: int = Field(8, ge=2)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0)
    max_completion_length: int = Field(256, ge=1)
    max_length: Length = 1024


class GRPOMethod(_OnlineMethod):
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300)."""

    loss: GRPOLoss = GRPOLoss.DAPO


class RLOOMethod(_OnlineMethod):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740)."""

    beta: float = Field(0.05, ge=0)


class ChatEndpoint(Document):
    """A model behind an OpenAI-compatible endpoint: its address up to ``/v1``, and the name it is served by."""

    url: str
    model: str


class TeacherEndpoint(ChatEndpoint):
    """A teacher behind an endpoint; it answers each prompt before training."""

    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(512, ge=1)


class Teacher(Document):
    """Teacher: the weights at ``uri`` (on-policy), or the answers of ``endpoint``."""

    uri: str | None = None
    endpoint: TeacherEndpoint | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        return _exactly_one(self, frozenset())


class DistillationMethod(Document):
    """Distillation from a larger model (on-policy: Agarwal et al. 2024, arXiv:2306.13649)."""

    teacher: Teacher
    temperature: float = Field(1.0, gt=0)
    max_completion_length: int = Field(256, ge=1)
    max_length: Length = 1024


MethodMember = (
    SFTMethod
    | DPOMethod
    | KTOMethod
    | GRPOMethod
    | RLOOMethod
    | RewardMethod
    | PretrainingMethod
    | DistillationMethod
)


class Method(Document):
    """Training method: exactly one member is set."""

    sft: SFTMethod | None = None
    dpo: DPOMethod | None = None
    kto: KTOMethod | None = None
    grpo: GRPOMethod | None = None
    rloo: RLOOMethod | None = None
    reward: RewardMethod | None = None
    pretraining: PretrainingMethod | None = None
    distillation: DistillationMethod | None = None

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        return _exactly_one(self, frozenset())

    @property
    def member(self) -> MethodMember:
        """The member that is set."""
        member: MethodMember = getattr(self, self.key)
        return member

    @property
    def key(self) -> str:
        """The name of the member that is set, such as ``sft``."""
        return next(iter(_members(self, frozenset())))

    @property
    def max_length(self) -> int:
        """Tokens of a row, prompt and answer together."""
        return self.member.max_length

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """The rewards of a method that has some."""
        return self.member.rewards if isinstance(self.member, _OnlineMethod) else ()


def _members(document: Document, excluded: frozenset[str]) -> list[str]:
    names = type(document).model_fields
    return [name for name in names if name not in excluded and getattr(document, name) is not None]


def _exactly_one(document: Chosen, excluded: frozenset[str]) -> Chosen:
    members = _members(document, excluded)
    if len(members) != 1:
        raise ValueError(f"exactly one member has to be set, not {members or 'none'}")
    return document
