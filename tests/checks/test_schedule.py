"""Which stages of `make test` may start beside those that run."""

from tunesmith_checks.schedule import STAGES, Capacity, Stage, choose

MACHINE = Capacity(cores=2, gigabytes=8)

# Seconds and busy cores of each stage in a run on such a machine. To what was counted of real pods' stage, 0.14 cores,
# comes what their own processes took of the machine, and to the trainer's, 0.30 cores, that of its forked pods.
BUILDER = Capacity(cores=2, gigabytes=24)
MEASURED = {
    "setup-tools": (0.5, 0.3),
    "setup-cluster": (1.5, 0.8),
    "setup-trainer": (0.5, 0.5),
    "images-cpu": (20.5, 0.55),
    "test-e2e": (960, 0.5),
    "test-trainer": (1123, 0.55),
    "test-control-plane": (771, 0.72),
    "test-engine": (317, 0.37),
    "test-data": (457, 0.71),
    "test-evaluation": (210, 0.85),
    "test-image": (198, 1.34),
    "test-unit": (516, 0.78),
    "lint": (12, 0.59),
    "test-compiled": (25, 0.9),
    "test-storage": (46, 0.62),
}


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def test_stages_start_in_order_as_long_as_cores_last() -> None:
    stages = [Stage("a", 1.2, 1), Stage("b", 0.8, 1), Stage("c", 0.1, 1)]
    assert names(choose(stages, [], MACHINE)) == ["a", "b"]


def test_shares_that_add_up_to_the_whole_machine_fit() -> None:
    stages = [Stage(name, 0.1, 1) for name in "abc"]
    assert len(choose(stages, [], Capacity(0.3, 8))) == 3


def test_a_smaller_stage_passes_one_that_does_not_fit() -> None:
    stages = [Stage("large", 1.5, 1), Stage("small", 0.5, 1)]
    assert names(choose(stages, [Stage("running", 1, 1)], MACHINE)) == ["small"]


def test_memory_keeps_stages_apart_as_cores_do() -> None:
    stages = [Stage("a", 0.1, 5), Stage("b", 0.1, 5)]
    assert names(choose(stages, [], MACHINE)) == ["a"]


def test_a_stage_larger_than_the_machine_runs_alone() -> None:
    huge = Stage("huge", 16, 64)
    assert choose([huge], [Stage("running", 0.1, 1)], MACHINE) == []
    assert choose([huge, Stage("small", 0.1, 1)], [], MACHINE) == [huge]


def test_a_stage_waits_for_those_before_it_to_end_not_only_to_start() -> None:
    before, after = Stage("before", 0.1, 1), Stage("after", 0.1, 1, after=("before",))
    assert choose([after, before], [], MACHINE) == [before]
    assert choose([after], [before], MACHINE) == []
    assert choose([after], [], MACHINE) == [after]


def test_each_stage_comes_once_and_after_stages_that_exist_before_it() -> None:
    known: set[str] = set()
    for stage in STAGES:
        assert stage.name not in known
        assert known.issuperset(stage.after)
        known.add(stage.name)


def test_nothing_that_is_tested_is_left_out_of_the_schedule(makefile_targets: set[str]) -> None:
    wanted = {name for name in makefile_targets if name.startswith(("test-", "setup-"))} - {"test-long"}
    assert {stage.name for stage in STAGES} == wanted | {"lint", "images-cpu"}


def simulate() -> float:
    """Seconds of a run of all stages, in which those that run share the cores where they want more than there are."""
    waiting, running, seconds = list(STAGES), dict[Stage, float](), 0.0
    while waiting or running:
        for stage in choose(waiting, running, BUILDER):
            waiting.remove(stage)
            running[stage] = MEASURED[stage.name][0]
        slowdown = max(1.0, sum(MEASURED[stage.name][1] for stage in running) / BUILDER.cores)
        passed = min(running.values())
        seconds += passed * slowdown
        running = {stage: left - passed for stage, left in running.items() if left > passed}
    return seconds


def test_the_schedule_wastes_little_of_the_machine() -> None:
    work = sum(seconds * cores for seconds, cores in MEASURED.values())
    assert simulate() < 1.06 * work / BUILDER.cores
