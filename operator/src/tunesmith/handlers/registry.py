"""The kinds that this operator serves; see the package's docstring on how one plugs in."""

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.controller import AnyReconciler
from tunesmith.cluster.observe_evalrun import observe_evalrun
from tunesmith.cluster.observe_finetunejob import observe_finetunejob
from tunesmith.cluster.reconciler import Reconciler
from tunesmith.decide.evaluation import plan_evaluation
from tunesmith.decide.training import plan_training

RECONCILERS: tuple[AnyReconciler, ...] = (
    Reconciler(
        kind=FineTuneJob.kind_name, parse=FineTuneJob.parse, observe=observe_finetunejob, plan=plan_training
    ),
    Reconciler(kind=EvalRun.kind_name, parse=EvalRun.parse, observe=observe_evalrun, plan=plan_evaluation),
)
