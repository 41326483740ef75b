"""Phases, condition types and reasons of the three kinds."""

from enum import StrEnum


class FineTuneJobPhase(StrEnum):
    """Phase of a FineTuneJob."""

    PENDING = "Pending"
    GENERATING = "Generating"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class EvalRunPhase(StrEnum):
    """Phase of an EvalRun."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class AdapterPhase(StrEnum):
    """Phase of one alias of an AdapterDeployment."""

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
    """Result of a comparison."""

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
    FITS = "Fits"
    SERVABLE = "Servable"
    TRAINED = "Trained"
    AVAILABLE = "Available"
    SOURCES_REACHABLE = "SourcesReachable"


class RunReason(StrEnum):
    """Reasons shared by the kinds that run Jobs: attempts, pods that do not start, failures and limits."""

    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    SUCCEEDED = "Succeeded"
    RETRYING = "Retrying"
    DISRUPTED = "Disrupted"
    OUT_OF_MEMORY_REMEDY = "OutOfMemoryRemedy"
    CHILDREN_REMOVED = "ChildrenRemoved"
    POD_NOT_CREATED = "PodNotCreated"
    CONTAINER_NOT_STARTED = "ContainerNotStarted"
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
    INTERNAL_ERROR = "InternalError"
    TOO_MANY_DISRUPTIONS = "TooManyDisruptions"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXHAUSTED = "BudgetExhausted"


class FineTuneJobReason(StrEnum):
    """Reasons of a FineTuneJob's conditions and events, beside those of RunReason."""

    GENERATING = "Generating"
    GENERATED = "Generated"
    PREPARING = "Preparing"
    PREPARED = "Prepared"
    TRAINING = "Training"
    TRAINED = "Trained"
    WAITING_FOR_JOB = "WaitingForJob"
    EARLIER_JOB_FAILED = "EarlierJobFailed"
    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    GPU_MEMORY_UNKNOWN = "GPUMemoryUnknown"
    DRIVER_TOO_OLD = "DriverTooOld"
    UNSUPPORTED_GPU = "UnsupportedGPU"
    SERVABLE = "Servable"
    NOT_SERVABLE = "NotServable"
    CLAIM_NOT_SHARED = "ClaimNotShared"
    OVERFITTING = "Overfitting"
    STOPPED_EARLY = "StoppedEarly"
    DATA_ISSUES = "DataIssues"
    BUDGET_ESTIMATED = "BudgetEstimated"
    EVALUATION_CREATED = "EvaluationCreated"
    EVAL_RUN_NAME_TAKEN = "EvalRunNameTaken"


class EvalRunReason(StrEnum):
    """Reasons of an EvalRun's conditions and events, beside those of RunReason."""

    INVALID_SPEC = "InvalidSpec"
    WAITING_FOR_CANDIDATE = "WaitingForCandidate"
    CANDIDATE_FAILED = "CandidateFailed"
    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    GPU_MEMORY_UNKNOWN = "GPUMemoryUnknown"
    MODEL_SIZE_UNKNOWN = "ModelSizeUnknown"
    EVALUATING = "Evaluating"
    PASSED = "Passed"
    NOT_PASSED = "NotPassed"
    INCONCLUSIVE = "Inconclusive"


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
    UNPROVEN = "Unproven"
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
    NO_SERVING_IMAGE = "NoServingImage"
    WAITING_FOR_GPU = "WaitingForGPU"
    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    GPU_MEMORY_UNKNOWN = "GPUMemoryUnknown"
    NOT_ESTIMATED = "NotEstimated"
    ALL_STABLE = "AllStable"
    VOLUME_CLAIM_NOT_FOUND = "VolumeClaimNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    UNSCHEDULABLE = "Unschedulable"
