--[[ admit(at, due_ms): what job/put answers instead of putting, nil if nothing speaks against it.
A put that is repeated is no duplicate and finds its place in a full queue.
Needs accept's and room's locals, unique() and the locals `rules`, `rejects`, `dedup_id`.
COST up to nine commands ]]
local function known(id)
  return id ~= '' and redis.call('HGET', items, id) == ARGV[2] and id
end
local function admit(at, due_ms)
  if ARGV[8] ~= '' and not rules[1] then
    return redis.error_reply('UNBOUND the queue is not bound to this exchange')
  end
  if dedup_id ~= '' then
    local holder = unique(dedup_id, ARGV[11], at)
    if holder then
      local same = known(ARGV[1]) or known(ARGV[3])
      if not same then
        redis.call('INCR', KEYS[17])
      end
      return same or { holder }
    end
  end
  if longest and rejects and due_ms <= 0 and excess() >= 0 then
    return known(ARGV[1]) or known(ARGV[3])
      or redis.error_reply('QUEUEFULL the queue has reached its x-max-length')
  end
end
