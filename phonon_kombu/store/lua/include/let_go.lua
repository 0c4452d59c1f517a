--[[ let_go(holder, token, at, lease_ms): a holder leaves. The last one out becomes closer, under
`token`, until the lease ends; without a lease ('') it has nothing to do and frees the resource.
Returns 1 if that is the caller, else 0.
Needs the locals `holders`, `stalled` and `about`.
COST three commands, one more for the last ]]
local function let_go(holder, token, at, lease_ms)
  redis.call('HDEL', holders, holder)
  if redis.call('EXISTS', holders, stalled) > 0 then
    return 0
  end
  if lease_ms == '' then
    redis.call('DEL', about)
    return 1
  end
  redis.call('HSET', about, 'closer', token, 'until', at + lease_ms)
  return 1
end
