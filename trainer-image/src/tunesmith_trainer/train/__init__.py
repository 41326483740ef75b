"""Train stage: fine-tuning with TRL and PEFT, from prepared rows to a published artifact."""
