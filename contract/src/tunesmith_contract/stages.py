"""Stages of a run, in their order; each is a Job of its own and a command of the trainer."""

from enum import StrEnum


class Stage(StrEnum):
    """Name of a stage: in Job names, labels, reports and ``run.json``."""

    GENERATE = "generate"
    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
