--[[ excess(): by how many ready jobs the queue is longer than `longest`.
shorten(at): drop the oldest of those that are too many, the least urgent level first.
Needs pop(), drop() and the locals `items`, `longest`, `holders` (claimed, scheduled, stalled) and
`order`, which it fills. KEYS 18 to 27 are the levels, ARGV 12 the order.
COST four commands; shorten up to 100 jobs ]]
local function excess()
  return redis.call('HLEN', items) - redis.call('ZCARD', holders[1])
    - redis.call('ZCARD', holders[2]) - redis.call('SCARD', holders[3]) - longest
end
local function shorten(at)
  local count = math.min(excess(), 100)
  if count > 0 then
    for i = 1, 10 do
      order[ARGV[12] == 'highest' and i or 11 - i] = KEYS[17 + i]
    end
    local dropped, bodies = pop(count, 0)
    if #dropped > 0 then
      drop(dropped, bodies, 'maxlen', at)
    end
  end
end
