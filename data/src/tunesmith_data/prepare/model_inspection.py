"""Inspection of the base model in a separate process, before rows are read."""

from pathlib import Path

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import OutputFormat, PrepareConfig
from tunesmith_data.pod.storage import Storage


def inspect_base_model(config: PrepareConfig, storage: Storage, folder: Path) -> ModelReport:
    """Report on the base model, without its chat template.

    All that loads torch and transformers' models is imported here: ``call_isolated`` keeps it out of the process that
    streams rows.

    Args:
        folder: folder with configuration and tokenizer.

    Raises:
        UserError: the model can't be tuned as the run asks for.
    """
    from tunesmith_data.models.inspection import inspect_model

    if OutputFormat.GGUF in config.formats:
        from tunesmith_data.models.gguf_converter import require_gguf

        require_gguf(folder)
    classifier = config.method.reward is not None
    return inspect_model(storage, config.base_model, folder, classifier=classifier)
