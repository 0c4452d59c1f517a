--[[ answer(found, what, count, token, lease_ms, group): how every arrival ends. Who brings the last
part, or comes when the lease of a dead closer has ended, becomes closer under `token`. Returns the
script's reply. `found` is what was known of the chord before: state, closer, until, nested, size,
grown; `what` and `count` are replied to all others.
Needs `now`, `complete` and their locals.
COST two commands, three more for who becomes closer ]]
local function answer(found, what, count, token, lease_ms, group)
  local at = now()
  local closer = complete(token, at, lease_ms, group)
  if not closer and found[1] == 'closing' and at >= tonumber(found[3]) then
    redis.call('HSET', chord, 'closer', token, 'until', at + lease_ms)
    redis.call('ZADD', closing, at + lease_ms, group)
    closer = true
  end
  if closer then
    local known = redis.call('HMGET', chord, 'arrived', 'opened')
    return { 1, tonumber(known[1]), found[5] + (found[6] or 0), found[4] or '', known[2] or '' }
  end
  return { what, count }
end
