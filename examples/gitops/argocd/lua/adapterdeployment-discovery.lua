-- Actions on the rollout of one adapter. The parameter names the adapter; by default it is the only one that it fits.
local icons = {
  pause = "fa-pause",
  resume = "fa-play",
  promote = "fa-forward",
  abort = "fa-stop",
  retry = "fa-redo",
  undo = "fa-undo",
}
local actions = {}
for verb, icon in pairs(icons) do
  local names = names_for(verb)
  local chosen = #names == 1 and names[1] or ""
  actions[verb] = {
    disabled = #names == 0,
    iconClass = "fa fa-fw " .. icon,
    params = {{name = "adapter", default = chosen}},
  }
end
return actions
