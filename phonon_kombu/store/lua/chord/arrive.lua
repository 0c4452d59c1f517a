--[[ chord/arrive: a part's result is kept, and the part arrives at its chord. The one who brings
the last part, or comes again when the lease of a dead closer has ended, becomes closer.
KEYS    1 chord HASH   2 arrived LIST   3 seen STRING   4 members SET   5 closing ZSET
        6 result STRING (its name is the channel, too)
ARGV    1 group   2 task_id   3 index ('' none: else below 2^23)
        4 part ('' it is the result kept here: the chord points at that; a failed one has its own)
        5 failed ('1')   6 token   7 lease_ms   8 expires_seconds ('' never)
        9 value ('' the result is kept elsewhere)   10 ttl_seconds   11 head   12 success
        13 expected (as result/store)
RETURNS what (0 waits, 1 the caller is closer, 2 not counted, 3 there is no such chord; nothing was
        done: 4 the caller has to judge the stored result, 5 another result stands, so come with
        the part itself, 6 prolong first the results that the chord points at), parts so far;
        where the caller is closer: its size, whether it is nested and when it was opened, where he
        has to judge: the stored result
ERRORS  none   STATES open -> open, closing; closing -> closing
COST    O(log closing) ]]
--- @include now
--- @include store
local chord, seen, members, closing = KEYS[1], KEYS[3], KEYS[4], KEYS[5]
--- @include complete
--- @include answer
--- @include arrival
local found = redis.call('HMGET', chord, 'state', 'closer', 'until', 'nested', 'size', 'grown',
  'points')
local state, points, life = found[1], found[7], tonumber(ARGV[8]) or 0
local function old()
  return life > 0 and redis.call('TTL', chord) * 10 < life * 9
end
-- The results must not expire before the chord: his client prolongs them before it is prolonged.
if state == 'open' and points and tonumber(ARGV[10]) ~= 0 and old() then
  return { 6, 0 }
end
if ARGV[9] ~= '' then
  local stored = store(KEYS[6], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13])
  if type(stored) == 'string' then
    return { 4, stored }
  elseif stored == 0 and ARGV[4] == '' then
    return { 5, 0 }
  end
end
if not state then
  return { 3, 0 }
end
local count, what, fresh = 0, 2, false
if state == 'open' and arrival(ARGV[2], ARGV[3]) then
  if ARGV[4] ~= '' then
    fresh = redis.call('RPUSH', KEYS[2], ARGV[3] .. ':' .. ARGV[4]) == 1
  else
    redis.call('RPUSH', KEYS[2], ARGV[3] .. '>' .. ARGV[2])
    if not points then
      redis.call('HSET', chord, 'points', 1)
    end
  end
  count = redis.call('HINCRBY', chord, 'arrived', 1)
  what = 0
  if ARGV[5] == '1' then
    redis.call('HINCRBY', chord, 'failed', 1)
  end
  -- A key that this part was the first to need has no end yet: the list where other parts were
  -- folded, and in a chord that has grown what tells its parts apart.
  if life > 0 and (count == 1 or fresh or old() or found[6]
    and (redis.call('TTL', seen) == -1 or redis.call('TTL', members) == -1)) then
    for i = 1, 4 do
      redis.call('EXPIRE', KEYS[i], life)
    end
  end
end
return answer(found, what, count, ARGV[6], ARGV[7], ARGV[1])
