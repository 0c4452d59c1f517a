--[[ excess(): by how many ready jobs the queue is longer than `longest`.
shorten(at): drop the oldest of those that are too many, the least urgent level first.
Needs pop(), drop() and the locals `items`, `longest`, `holders` (claimed, scheduled, stalled).
COST four commands; shorten up to 100 jobs ]]
local function excess()
  return redis.call('HLEN', items) - redis.call('ZCARD', holders[1])
    - redis.call('ZCARD', holders[2]) - redis.call('SCARD', holders[3]) - longest
end
local function shorten(at)
  local count = math.min(excess(), 100)
  if count > 0 then
    local dropped, bodies = pop(count, 0)
    if #dropped > 0 then
      drop(dropped, bodies, 'maxlen', at)
    end
  end
end
