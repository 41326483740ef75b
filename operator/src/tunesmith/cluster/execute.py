"""Execution of a plan: actions in their order, then the status, then the events."""

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.decide.plan import Action, Apply, Create, Delete, Patch, Plan, Push
from tunesmith.manifests.objects import Body

from .live import AgentHub


async def execute(client: Client, agents: AgentHub, recorder: EventRecorder, body: Body, plan: Plan) -> Body:
    """Carry out a plan for the resource; returns its latest body.

    Raises:
        ApiError: an action or the status failed; the actions before it are done, and may be done again.
    """
    for action in plan.actions:
        await act(client, agents, body, action)
    if plan.status is not None and plan.status != body.get("status"):
        body = await client.replace_status(body, plan.status)
    for event in plan.events:
        recorder.record(body, event)
    return body


async def act(client: Client, agents: AgentHub, body: Body, action: Action) -> None:
    """Carry out one action; one that is done already counts as done."""
    match action:
        case Create(manifest):
            await client.create(manifest)
        case Apply(manifest):
            await client.apply(manifest)
        case Patch(api_version, kind, namespace, name, patch):
            await client.patch(api_version, kind, namespace, name, patch)
        case Delete(api_version, kind, namespace, name, uid):
            await client.delete(api_version, kind, namespace, name, uid)
        case Push(desired=desired):
            agents.push(body["metadata"]["uid"], desired)
