"""Typed words: phases for people, condition types and reasons for machines, reasons of events."""

from enum import StrEnum


class FineTuneJobPhase(StrEnum):
    """How far a FineTuneJob is."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class EvalRunPhase(StrEnum):
    """How far an EvalRun is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class AdapterPhase(StrEnum):
    """How one alias of an AdapterDeployment is."""

    PENDING = "Pending"
    LOADING = "Loading"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    STABLE = "Stable"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    BLOCKED = "Blocked"
    DEGRADED = "Degraded"


class Verdict(StrEnum):
    """What a comparison says."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class ConditionType(StrEnum):
    """Types of conditions. Ready, Reconciling and Stalled are on every kind, as kstatus reads them."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUCCEEDED = "Succeeded"
    DATA_READY = "DataReady"
    TRAINED = "Trained"
    AVAILABLE = "Available"
    SOURCES_REACHABLE = "SourcesReachable"


class FineTuneJobReason(StrEnum):
    """Reasons of a FineTuneJob's conditions and events."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    PREPARING = "Preparing"
    PREPARED = "Prepared"
    TRAINING = "Training"
    TRAINED = "Trained"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    RETRYING = "Retrying"
    DISRUPTED = "Disrupted"
    EVALUATION_CREATED = "EvaluationCreated"
    EVAL_RUN_NAME_TAKEN = "EvalRunNameTaken"
    CHILDREN_REMOVED = "ChildrenRemoved"
    QUEUED = "Queued"
    POD_NOT_CREATED = "PodNotCreated"
    CONTAINER_NOT_STARTED = "ContainerNotStarted"
    TOO_MANY_DISRUPTIONS = "TooManyDisruptions"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    UNSCHEDULABLE = "Unschedulable"
    USER_ERROR = "UserError"
    DATA_ERROR = "DataError"
    OUT_OF_MEMORY = "OutOfMemory"
    COMMUNICATION = "Communication"
    INFRASTRUCTURE = "Infrastructure"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class EvalRunReason(StrEnum):
    """Reasons of an EvalRun's conditions and events."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    WAITING_FOR_CANDIDATE = "WaitingForCandidate"
    CANDIDATE_FAILED = "CandidateFailed"
    EVALUATING = "Evaluating"
    PASSED = "Passed"
    NOT_PASSED = "NotPassed"
    INCONCLUSIVE = "Inconclusive"
    RETRYING = "Retrying"
    DISRUPTED = "Disrupted"
    CHILDREN_REMOVED = "ChildrenRemoved"
    QUEUED = "Queued"
    POD_NOT_CREATED = "PodNotCreated"
    CONTAINER_NOT_STARTED = "ContainerNotStarted"
    TOO_MANY_DISRUPTIONS = "TooManyDisruptions"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    UNSCHEDULABLE = "Unschedulable"
    USER_ERROR = "UserError"
    DATA_ERROR = "DataError"
    OUT_OF_MEMORY = "OutOfMemory"
    COMMUNICATION = "Communication"
    INFRASTRUCTURE = "Infrastructure"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class AdapterDeploymentReason(StrEnum):
    """Reasons of an AdapterDeployment's conditions, adapters and events."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    ENGINE_STARTING = "EngineStarting"
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"
    WAITING_FOR_SOURCE = "WaitingForSource"
    SOURCE_FAILED = "SourceFailed"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCES_REACHABLE = "SourcesReachable"
    NO_PASSING_EVAL_RUN = "NoPassingEvalRun"
    UNEVALUATED = "Unevaluated"
    DIGEST_REJECTED = "DigestRejected"
    INCOMPATIBLE = "Incompatible"
    LOADING = "Loading"
    LOAD_FAILED = "LoadFailed"
    NOT_ACTIVE = "NotActive"
    STEP_STARTED = "StepStarted"
    WAITING_FOR_REQUESTS = "WaitingForRequests"
    PAUSED = "Paused"
    PROMOTED = "Promoted"
    ERROR_RATE_TOO_HIGH = "ErrorRateTooHigh"
    ROLLED_BACK = "RolledBack"
    WITHDRAWN = "Withdrawn"
    SERVICE_NAME_TAKEN = "ServiceNameTaken"
    ALL_STABLE = "AllStable"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    UNSCHEDULABLE = "Unschedulable"
