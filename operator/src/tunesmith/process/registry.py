"""The kinds that this operator serves; see the package's docstring on how one plugs in."""

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.controller import AnyReconciler
from tunesmith.cluster.observe_adapterdeployment import dependents, observe_adapterdeployment
from tunesmith.cluster.observe_evalrun import observe_evalrun, waiting_runs
from tunesmith.cluster.observe_finetunejob import observe_finetunejob, waiting_jobs
from tunesmith.cluster.reconciler import Reconciler
from tunesmith.decide.evalrun.planning import plan_evaluation
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.serving.planning import plan_serving

RECONCILERS: tuple[AnyReconciler, ...] = (
    Reconciler("FineTuneJob", FineTuneJob.parse, observe_finetunejob, plan_training, waiting_jobs),
    Reconciler("EvalRun", EvalRun.parse, observe_evalrun, plan_evaluation, waiting_runs),
    Reconciler(
        "AdapterDeployment", AdapterDeployment.parse, observe_adapterdeployment, plan_serving, dependents
    ),
)
