--[[ now(): the server's clock in milliseconds. Workers' clocks decide nothing.
COST one command ]]
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
