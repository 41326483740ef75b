-- Health of a FineTuneJob, EvalRun or AdapterDeployment, by the conditions that kstatus reads as well.
local health = {status = "Progressing", message = "The operator has not processed the resource yet."}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
local observed = status.observedGeneration
if observed ~= nil and observed ~= obj.metadata.generation then
  health.message = "The operator has not processed the latest change yet."
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end
local ready = conditions["Ready"] or {}

-- What people hold: a suspended job, a paused rollout.
local held = status.phase == "Suspended"
for _, adapter in ipairs(status.adapters or {}) do
  held = held or adapter.phase == "Paused"
end

health.message = ready.message
if holds("Stalled") and not holds("Reconciling") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].message
elseif held then
  health.status = "Suspended"
elseif holds("Ready") and not holds("Reconciling") then
  health.status = "Healthy"
end
return health
