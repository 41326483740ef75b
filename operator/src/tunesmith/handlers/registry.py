"""The kinds that this operator serves; see the package's docstring on how one plugs in."""

from tunesmith.cluster.controller import AnyReconciler

RECONCILERS: tuple[AnyReconciler, ...] = ()
