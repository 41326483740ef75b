-- Asks the operator for the action, once: the ID is new each second. Its result is in status.adapters[].actions.
local names = names_for(verb)
local adapter = actionParams ~= nil and actionParams["adapter"] or ""
if adapter == "" then
  if #names ~= 1 then
    local known = #names == 0 and "none" or table.concat(names, ", ")
    error("name the adapter in the parameter adapter; " .. verb .. " applies to: " .. known, 0)
  end
  adapter = names[1]
end
local known = false
for _, each in ipairs(obj.spec.adapters or {}) do
  known = known or each.name == adapter
end
if not known then
  error("spec.adapters has no adapter " .. adapter, 0)
end

local id = "argocd-" .. require("os").time()
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["tunesmith.dev/action"] =
  '{"id": "' .. id .. '", "adapter": "' .. adapter .. '", "verb": "' .. verb .. '", "by": "Argo CD"}'
return obj
