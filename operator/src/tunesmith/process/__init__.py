"""The operator's process: servers, election, watches, and the registry of kinds.

A kind plugs in by one value in ``registry.py``::

    Reconciler("FineTuneJob", FineTuneJob.parse, observe_finetunejob, plan_training, finetunejob_references)

- ``observe_*`` lives in ``cluster/observe_<kind>.py`` and never writes. Children come from
  ``cluster.children.observe_children`` (Jobs, ConfigMaps, Deployments …) and ``observe_pods``, resources of the
  operator's own kinds from ``reader.bodies``, other objects by name from ``reader.client.get``. Reports of pods are in
  ``reader.live.progress.latest(uid)`` and ``reader.live.agents.states(uid)``.
- ``plan_*`` lives in ``decide/`` and returns a ``Plan``. Its ``status`` is the whole status: a field that it leaves out
  is removed. It is written after the actions, by replacing it under the resourceVersion that was read, and only when
  it differs. A refused action becomes ``Ready=False`` with the API server's message (``decide/refusal.py``).
- ``*_references`` lists the resources of the operator's kinds that the resource names. It is reconciled when one of
  them appears, is deleted, or gets another outcome (``Succeeded``, ``Failed``, an artifact, a verdict).
- Every child carries ``child_labels``: a change of a labeled child of ``controller_runtime.index.WATCHED_KINDS``
  reconciles its resource.
- A kind of object that is new to ``controller_runtime/kinds.py`` is added there, and its verbs in ``docs/security.md``.
"""
