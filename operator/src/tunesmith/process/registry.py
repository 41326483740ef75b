"""The kinds of this operator; the package's docstring says how one plugs in."""

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.controller import AnyReconciler
from tunesmith.cluster.observe_adapterdeployment import (
    adapterdeployment_references,
    observe_adapterdeployment,
)
from tunesmith.cluster.observe_evalrun import evalrun_references, observe_evalrun
from tunesmith.cluster.observe_finetunejob import finetunejob_references, observe_finetunejob
from tunesmith.cluster.reconciler import Reconciler
from tunesmith.controller_runtime.index import WATCHED_KINDS
from tunesmith.decide.evalrun.planning import plan_evaluation
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.serving.planning import plan_serving

_RUN_CHILDREN = (("v1", "ConfigMap"), ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "Service"))
_SERVING_CHILDREN = tuple(kind for kind in WATCHED_KINDS if kind != ("batch/v1", "Job"))

RECONCILERS: tuple[AnyReconciler, ...] = (
    Reconciler(
        "FineTuneJob",
        FineTuneJob.parse,
        observe_finetunejob,
        plan_training,
        finetunejob_references,
        _RUN_CHILDREN,
    ),
    Reconciler("EvalRun", EvalRun.parse, observe_evalrun, plan_evaluation, evalrun_references, _RUN_CHILDREN),
    Reconciler(
        "AdapterDeployment",
        AdapterDeployment.parse,
        observe_adapterdeployment,
        plan_serving,
        adapterdeployment_references,
        _SERVING_CHILDREN,
    ),
)
