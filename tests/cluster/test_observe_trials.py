"""Observation of a search: its trials from memory, and what a trial takes over from its search."""

from typing import Any

import pytest
from simulation.search_world import SEARCH, SearchWorld

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.cluster.observe_finetunejob import finetunejob_references, observe_finetunejob
from tunesmith.cluster.reconciler import Reader


def load(world: SearchWorld, api: Any, reader: Reader) -> None:
    """The world's ConfigMaps and FineTuneJobs, as watches deliver them."""
    for (kind, _), body in world.objects.items():
        if kind == "ConfigMap":
            api.index.put("v1", "ConfigMap", api.add(body))
    for number, body in enumerate((world.search, *world.trial_jobs()), 1):
        body["metadata"]["resourceVersion"] = str(number)
        reader.bodies.put(body)


@pytest.fixture
def world() -> SearchWorld:
    """A search of which the first trial has ended, and the operator has not seen it yet."""
    world = SearchWorld(SEARCH)
    world.prepare()
    first = world.running_trials()[0]
    world.end_trial(first)
    with world.focus(first):
        world.reconcile()
    return world


async def test_trials_and_the_records_of_ended_ones(world: SearchWorld, api: Any, reader: Reader) -> None:
    load(world, api, reader)
    observed = await observe_finetunejob(reader, FineTuneJob.parse(world.search))
    assert sorted(observed.search.proposals) == sorted(observed.search.jobs) == [1, 2]
    (number,) = observed.search.ended_jobs
    ended = observed.search.ended_jobs[number]
    assert number == 1
    assert ended.run is not None
    assert any(record.report and record.report.training for record in ended.records)


async def test_recorded_trials_are_not_read_again(world: SearchWorld, api: Any, reader: Reader) -> None:
    world.settle()
    load(world, api, reader)
    observed = await observe_finetunejob(reader, FineTuneJob.parse(world.search))
    assert 1 in observed.search.records
    assert sorted(observed.search.jobs) == [2, 3]


async def test_a_trial_reads_its_search_until_it_has_begun(
    world: SearchWorld, api: Any, reader: Reader
) -> None:
    load(world, api, reader)
    trial = world.trial_jobs()[1]
    begun = await observe_finetunejob(reader, FineTuneJob.parse(trial))
    assert begun.related.trial_source is None
    new = {**trial, "metadata": {**trial["metadata"], "name": "expenses-trial-9", "uid": "new"}}
    source = (await observe_finetunejob(reader, FineTuneJob.parse(new))).related.trial_source
    assert source is not None
    assert source.inputs is not None
    assert [record.stage for record in source.records] == ["prepare"]


async def test_a_search_of_the_same_name_is_another_one(world: SearchWorld, api: Any, reader: Reader) -> None:
    load(world, api, reader)
    trial = world.trial_jobs()[1]
    (owner,) = trial["metadata"]["ownerReferences"]
    metadata = {**trial["metadata"], "uid": "new", "ownerReferences": [{**owner, "uid": "before"}]}
    observed = await observe_finetunejob(reader, FineTuneJob.parse({**trial, "metadata": metadata}))
    assert observed.related.trial_source is None


def test_a_search_and_its_trials_wake_each_other(world: SearchWorld) -> None:
    search, trial = FineTuneJob.parse(world.search), FineTuneJob.parse(world.trial_jobs()[0])
    assert [reference.name for reference in finetunejob_references(search)] == [
        f"expenses-trial-{number}" for number in (1, 2, 3, 4)
    ]
    assert [reference.name for reference in finetunejob_references(trial)] == ["expenses"]
