"""The train stage: TRL and PEFT, checkpoints that are committed, and an artefact at the end."""
