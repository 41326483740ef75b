"""Search for hyperparameters: pure functions on top of Optuna.

Nothing is kept between calls. Each call builds Optuna's study anew from the trials, so a process that was killed
comes to the same proposals, and trials may run in other processes, on other machines, or in another order.

- ``proposals.propose``: parameters of the next trial.
- ``halving.falls_behind``: True for a running trial that shall be ended early.
- ``results.best_trial``, ``results.importances``: outcome of a search.
- ``page``: table and plot as Markdown or as one HTML page.

Settings and trials are documents of ``tunesmith_contract.search``. A search in one process::

    trials: list[Trial] = []
    while (parameters := propose(settings, trials)) is not None:
        trial = Trial(number=len(trials) + 1, parameters=parameters)
        ...  # train; at each validation: falls_behind(settings, [*trials, trial with its measurements], trial.number)
        trials.append(trial with its state, loss and gpu_seconds)
    best = best_trial(trials)

Optuna is imported on the first proposal or comparison: it takes 40 MiB of memory.
"""
