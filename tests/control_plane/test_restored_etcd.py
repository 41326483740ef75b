"""etcd is restored from a backup while the operator runs on: nothing is stuck, lost or made twice."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_faults.fault_proxy import FaultProxy
from api_faults.faults import FaultPlan
from api_faults.restored_cluster import RestorableCluster, restorable_cluster
from api_faults.rollouts import WEIGHTS
from api_faults.written_history import WrittenHistory
from control_plane.cluster_runs import Runs
from control_plane.forked_operator import ForkedOperator
from control_plane.served_adapters import Serving
from control_plane.served_jobs import install_crds
from simulation.serving_world import build_adapter, digest_of
from simulation.simulated_cluster import DIGEST, eval_run, fine_tune_job, success

from tunesmith_cluster.client import eventually

log = logging.getLogger(__name__)

JOB, RUN = "FineTuneJob", "EvalRun"
CPU = {"gpusPerNode": 0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestorableCluster]:
    """A control plane of its own: others must not lose what they have made."""
    with restorable_cluster(tmp_path_factory.mktemp("restored")) as cluster:
        install_crds(cluster.server)
        yield cluster


def begin(runs: Runs, name: str, train: bool = False) -> dict[str, Any]:
    """A job that prepares, or trains."""
    made = runs.create(fine_tune_job(compute=CPU), name)
    if train:
        runs.finish(made, "prepare", 1, 0, success("prepare"))
        runs.wait(JOB, name, "Training")
    runs.pod(made, "train" if train else "prepare", 1)
    return made


def finish(runs: Runs, made: dict[str, Any], *stages: str) -> None:
    """Let the stages of a job end well, and the job with them."""
    for stage in stages:
        runs.finish(made, stage, 1, 0, success(stage))
    status = runs.wait(JOB, made["metadata"]["name"], "Succeeded")
    assert (status["artifact"]["digest"], status["attempts"]) == (DIGEST, 2)


def restore(
    cluster: RestorableCluster,
    backup: Path,
    caught_up: bool,
    operator: ForkedOperator,
    proxy: FaultProxy,
    history: WrittenHistory,
) -> None:
    """Restore the backup. The operator hears of it by its lease, and that last: until then it writes nothing.

    On a slow machine the operator loses its lease meanwhile, and is started again.
    """
    life, streams = operator.lives, proxy.streams
    with proxy.away("/leases/"):
        with proxy.away():
            cluster.restore(backup, caught_up)
            history.go_back()
        written = history.writes.copy()
        eventually(
            lambda: proxy.streams > streams // 2 or operator.lives > life, 60, what="the operator's watches"
        )
        assert history.writes == written or operator.lives > life


@pytest.mark.parametrize(
    "caught_up",
    [
        pytest.param(True, id="versions have caught up"),
        pytest.param(False, id="versions are behind", marks=pytest.mark.long),
    ],
)
def test_it_goes_on_from_the_backup(cluster: RestorableCluster, tmp_path: Path, caught_up: bool) -> None:
    server, runs, history = cluster.server, Runs(cluster.server, tmp_path), WrittenHistory(WEIGHTS)
    plan = FaultPlan(1, active=False)
    with FaultProxy(server.kubeconfig, tmp_path, plan, history.before, history.after) as proxy:
        operator = ForkedOperator(server, tmp_path, "", proxy.kubeconfig)
        serving = Serving(server, tmp_path, operator)
        operator.watch(runs.namespace, serving.namespace)
        with operator:
            serving.apply(build_adapter("one"))
            training, preparing, deleted = (
                begin(runs, "training", train=True), begin(runs, "preparing"), begin(runs, "deleted"),
            )  # fmt: skip
            candidate = {"candidate": {"uri": "pvc://artifacts/mine", "digest": DIGEST}}
            model = {"uri": "pvc://models/tiny"}
            judged = runs.create(eval_run(compute={"gpus": 0}, baseModel=model, **candidate), "judged")
            with serving.agent() as agent:
                serving.wait("Stable", digest_of("one"), timeout=60)
                cluster.back_up(tmp_path / "backup")
                # What follows will not have been.
                finish(runs, training, "train")
                runs.finish(preparing, "prepare", 1, 0, success("prepare"))
                runs.pod(preparing, "train", 1)
                runs.delete(JOB, "deleted")
                lost = begin(runs, "lost")
                serving.apply(build_adapter("two"))
                serving.wait("Progressing", digest_of("one"))
                agent.counters["expenses", digest_of("two")] = (20, 0)
                serving.wait("Stable", digest_of("two"))
                restore(cluster, tmp_path / "backup", caught_up, operator, proxy, history)
                assert not runs.exists(JOB, lost["metadata"]["name"])
                finish(runs, training, "train")
                finish(runs, preparing, "prepare", "train")
                finish(runs, deleted, "prepare", "train")
                serving.wait("Stable", digest_of("one"))
                told = [digest_of("one")]
                eventually(
                    lambda: [alias.stable and alias.stable.digest for alias in agent.desired.aliases] == told,
                    what="the pod to be told",
                )
                runs.finish(judged, "evaluate", 1, 0, success("evaluate"))
                assert runs.wait(RUN, "judged", "Succeeded")["verdict"] == "Pass"
                serving.apply(build_adapter("three"))
                serving.wait("Progressing", digest_of("one"))
                agent.counters["expenses", digest_of("three")] = (20, 0)
                serving.wait("Stable", digest_of("three"))
            log.info("the operator had %d lives", operator.lives)
    assert not history.violations
