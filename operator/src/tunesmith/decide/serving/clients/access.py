"""Clients of an AdapterDeployment: who is served, in a condition and in status."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.api.adapterdeployment import MAX_BUDGETS, AccessStatus, AdapterDeployment, BudgetStatus
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.decide.plan import Action, Event, Replace, Tell
from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_config_maps import build_usage, usage_config_map_name
from tunesmith_contract.agent import AccessReport

from .usage import UsageRecord, read_usage

#: Reasons that people are told by an event.
REPORTED = frozenset({Reason.NO_CLIENTS, Reason.INVALID_CLIENTS})

_FAULTS_SHOWN = 4
MAX_MESSAGE = 1024


def sharing_pods(deployment: AdapterDeployment, fleet: Fleet) -> int | None:
    """Number of pods that share the limits of clients; None where clients need no keys."""
    return max(deployment.spec.replicas, len(fleet.pods), 1) if deployment.spec.access else None


@dataclass(frozen=True, slots=True)
class FoldedUsage:
    """Tokens of clients after this pass, with what is to be done about them."""

    record: UsageRecord = field(default_factory=UsageRecord)
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()


def fold_usage(
    deployment: AdapterDeployment,
    config_maps: Iterable[Body],
    fleet: Fleet,
    pod_uids: frozenset[str],
    now: datetime,
) -> FoldedUsage:
    """Add what agents counted to the record, and tell each what the others have.

    Args:
        config_maps: the ConfigMaps of the resource.
        pod_uids: UIDs of all existing pods, also of those that end.
    """
    if deployment.spec.access is None:
        return FoldedUsage()
    name = usage_config_map_name(deployment)
    found = next((each for each in config_maps if each["metadata"]["name"] == name), None)
    before = read_usage(found)
    events: tuple[Event, ...] = ()
    if before is None:
        message = f"ConfigMap {name} can't be read: tokens that were counted by deleted pods are lost"
        events = (Event(Reason.RECORD_REBUILT, message, "Warning"),)
        before = UsageRecord()
    reports = (*fleet.ended, *(pod.agent.report for pod in fleet.pods if pod.agent is not None))
    record = before.fold(reports, pod_uids, now)
    actions: list[Action] = []
    connected = [pod.agent.report for pod in fleet.pods if pod.agent is not None and pod.agent.connected]
    stored = record.within_limit({report.access.run for report in connected if report.access})
    if events or stored.must_be_written(before, pod_uids, now):
        stored = stored.model_copy(update={"written": now})
        actions.append(Replace.of(found, build_usage(deployment, stored.to_json())))
    if messages := record.messages(connected):
        actions.append(Tell(messages))
    return FoldedUsage(record, tuple(actions), events)


def access_condition(
    deployment: AdapterDeployment, fleet: Fleet, has_network_policy: bool
) -> ConditionUpdate:
    """The condition AccessRestricted."""
    kind, access = ConditionType.ACCESS_RESTRICTED.value, deployment.spec.access
    if access is None:
        whom = (
            "every client that the NetworkPolicy of the pods admits"
            if has_network_policy
            else "every client that reaches the pods, as the chart's servingNetworkPolicy is switched off"
        )
        message = f"open to {whom}. To require keys, set access.keysSecretRef"
        return ConditionUpdate(kind, "False", Reason.OPEN_TO_NETWORK, message)
    secret = access.keys_secret_ref.name
    heard = [(pod, pod.agent.report.access) for pod in fleet.pods if pod.agent is not None]
    if open_pods := [pod.name for pod, report in heard if pod.ready and report is None]:
        names = ", ".join(open_pods[:3]) + (" and others" if len(open_pods) > 3 else "")
        message = f"these pods require no keys until they are replaced: {names}"
        return ConditionUpdate(kind, "False", Reason.PODS_OPEN, message)
    reports = [report for _, report in heard if report is not None]
    if not reports or any(pod.ready and pod.agent is None for pod in fleet.pods):
        return _last_condition(deployment)
    if all(report.clients + report.fault_count == 0 for report in reports):
        message = (
            f"Secret {secret} does not exist or has no entries, so every request is refused. Write one entry for each "
            f'client: kubectl create secret generic {secret} --from-literal=CLIENT=\'{{"key": "…"}}\''
        )
        return ConditionUpdate(kind, "True", Reason.NO_CLIENTS, message)
    worst = max(reports, key=lambda report: report.fault_count)
    if worst.fault_count:
        return ConditionUpdate(kind, "True", Reason.INVALID_CLIENTS, _faults_message(secret, worst))
    clients = max(report.clients for report in reports)
    return ConditionUpdate(
        kind, "True", Reason.KEYS_REQUIRED, f"clients with keys in Secret {secret}: {clients}"
    )


def _last_condition(deployment: AdapterDeployment) -> ConditionUpdate:
    """The condition while agents have not come back to an operator that was restarted, or have never come."""
    kind = ConditionType.ACCESS_RESTRICTED.value
    last = next((each for each in deployment.status.conditions if each.type == kind), None)
    if last is None or last.reason == Reason.OPEN_TO_NETWORK:
        return ConditionUpdate(kind, "Unknown", Reason.ENGINE_STARTING, "no agent has reported yet")
    return ConditionUpdate(kind, last.status, last.reason, last.message)


def _faults_message(secret: str, report: AccessReport) -> str:
    shown = report.faults[:_FAULTS_SHOWN]
    unshown = report.fault_count - len(shown)
    more = f"; and {unshown} others" if unshown > 0 else ""
    told = "; ".join(f"{fault.client}: {fault.message}" for fault in shown)
    message = f"clients of Secret {secret} are refused, the others are not affected: {told}"
    return message[: MAX_MESSAGE - len(more)] + more


def build_access_status(
    deployment: AdapterDeployment, fleet: Fleet, usage: UsageRecord, now: datetime
) -> AccessStatus | None:
    """Clients and the use of their budgets; None where clients need no keys."""
    if deployment.spec.access is None:
        return None
    clients = [pod.agent.report.access.clients for pod in fleet.pods if pod.agent and pod.agent.report.access]
    most_used = sorted(usage.current(now), key=lambda each: (-each.total / each.budget, each.client))
    budgets = sorted(
        (
            BudgetStatus(client=each.client, period=each.period, used=each.total, budget=each.budget)
            for each in most_used[:MAX_BUDGETS]
        ),
        key=lambda each: each.client,
    )
    return AccessStatus(clients=max(clients, default=0), budgets=tuple(budgets))
