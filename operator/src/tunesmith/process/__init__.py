"""The process: what wakes whom, and what runs beside it.

A kind plugs in by one value in ``registry.py``::

    Reconciler(kind="FineTuneJob", parse=parse_finetunejob, observe=observe_finetunejob, plan=plan_training)

- ``observe_*`` lives in ``cluster/observe_<kind>.py``. Its children come from ``cluster.children.observe_children``
  (Jobs, ConfigMaps, Deployments …) and ``observe_pods``; other objects by name from ``client.get``. It never writes.
  What pods told is in ``live.progress.latest(uid)`` and ``live.agents.states(uid)``.
- ``plan_*`` lives in ``decide/`` and returns a ``Plan``. Its ``status`` is the whole status: what it leaves out is
  gone. It is written after the actions, by replacing it under the resourceVersion that was read, and only when it
  differs. A refused action becomes ``Ready=False`` with the API server's words (``decide/refusal.py``).
- Every child carries ``child_labels``: a change of a labelled Job, Pod or ConfigMap wakes its resource.
- A kind of object that is new to ``controller_runtime/kinds.py`` is added there, and its verbs in ``docs/security.md``.
"""
