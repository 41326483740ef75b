"""A trial of a search trains on the rows that the job with the search has prepared."""

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.worker import run_stage


def test_rows_of_another_job_are_trained_on_and_stay(world: World, make: RowBuilders) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(44)), "search"))
    own = Workspace(world.storage, world.train_config(prepared, "search"))
    for uid in ("trial-1", "trial-2"):
        config = world.train_config(prepared, uid, {"maxSteps": 2}, preparedBy="search")
        assert run_stage(config, world.storage)
        assert (own.prepared / "train.parquet").is_file()
        assert not Workspace(world.storage, config).trained.exists()


def test_rows_that_are_gone_are_told(world: World, make: RowBuilders) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(44)), "search"))
    config = world.train_config(prepared, "trial-1", preparedBy="nobody")
    with pytest.raises((DataError, UserError)):
        run_stage(config, world.storage)
