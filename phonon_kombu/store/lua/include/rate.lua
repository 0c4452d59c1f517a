--[[ GCRA: jobs are due one `interval` (ms) after the other, and may be early by `slack`.
allowed(at): how many may be claimed now. spent(count, at): so many were; returns the ms until the
next one may be.
Needs the locals `interval`, `slack`, `tokens` (a key: when the limit is used up to).
COST one command each ]]
local function used_up(at)
  return math.max(at, tonumber(redis.call('GET', tokens) or 0))
end
local function allowed(at)
  return math.max(0, math.floor((at + slack - used_up(at)) / interval) + 1)
end
local function spent(count, at)
  local until_ms = used_up(at) + count * interval
  if count > 0 then
    local left = math.ceil(until_ms - at) + 1000
    redis.call('SET', tokens, string.format('%.3f', until_ms), 'PX', left)
  end
  return math.max(0, math.ceil(until_ms - slack - at))
end
