-- Actions on a FineTuneJob: suspend and resume, while it is not over.
local phase = obj.status ~= nil and obj.status.phase or "Pending"
local over = phase == "Succeeded" or phase == "Failed"
local suspended = obj.spec.suspend == true
return {
  suspend = {disabled = over or suspended, iconClass = "fa fa-fw fa-pause"},
  resume = {disabled = over or not suspended, iconClass = "fa fa-fw fa-play"},
}
