-- Names of the adapters to which a verb applies now.
local function names_for(verb)
  local names = {}
  local adapters = obj.status ~= nil and obj.status.adapters or {}
  for _, adapter in ipairs(adapters) do
    local rolling = adapter.candidate ~= nil
    local earlier = adapter.previous ~= nil or #(adapter.history or {}) > 1
    local applies = {
      pause = rolling and not adapter.paused,
      resume = adapter.paused == true,
      promote = rolling,
      abort = rolling,
      retry = adapter.reason == "DigestRejected",
      undo = adapter.stable ~= nil and earlier,
    }
    if applies[verb] then
      names[#names + 1] = adapter.name
    end
  end
  return names
end
