--[[ chord/fold: a part of an aggregating chord arrives: what it returned is folded into the
aggregate, once, and not kept beside it. As chord/arrive in all else.
KEYS    1 chord HASH   2 seen STRING   3 members SET   4 closing ZSET   5 result STRING
        6 arrived LIST   7 row HASH   8+ collections
ARGV    1 group   2 task_id   3 index ('' none: else below 2^23)   4 token   5 lease_ms
        6 expires_seconds ('' never)   7 value ('' the result is not kept, or elsewhere)
        8 ttl_seconds   9 head   10 success   11 expected (as result/store)   12+ delta
RETURNS as chord/arrive   ERRORS OVERFLOW, FIELDFULL, MISMATCH
STATES  open -> open, closing; closing -> closing   COST O(entries * log size) ]]
--- @include now
--- @include store
local chord, seen, members, closing = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local row, collections, delta, lasting = KEYS[7], {}, {}, { chord, seen, members }
for i = 8, #KEYS do
  collections[i - 7] = KEYS[i]
end
for i = 6, #KEYS do
  lasting[i - 2] = KEYS[i]
end
for i = 12, #ARGV do
  delta[i - 11] = ARGV[i]
end
--- @include complete
--- @include answer
--- @include arrival
--- @include fold
local found = redis.call('HMGET', chord, 'state', 'closer', 'until', 'nested', 'size', 'grown',
  'lasting')
local state = found[1]
local new = state == 'open' and not arrived(ARGV[2], ARGV[3])
if new then
  local refusal = unfoldable(delta)
  if refusal then
    return refusal
  end
end
if ARGV[7] ~= '' then
  local stored = store(KEYS[5], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
  if type(stored) == 'string' then
    return { 4, stored }
  end
end
if not state then
  return { 3, 0 }
end
local count, what = 0, 2
if new then
  arrival(ARGV[2], ARGV[3])
  fold(delta)
  count = redis.call('HINCRBY', chord, 'arrived', 1)
  what = 0
  if ARGV[6] ~= '' and ARGV[6] ~= '0' then
    -- A key that this part was the first to need has no end yet.
    local exist = redis.call('EXISTS', unpack(lasting))
    if exist ~= tonumber(found[7]) or redis.call('TTL', chord) * 10 < ARGV[6] * 9 then
      for i = 1, #lasting do
        redis.call('EXPIRE', lasting[i], ARGV[6])
      end
      redis.call('HSET', chord, 'lasting', exist)
    end
  end
end
return answer(found, what, count, ARGV[4], ARGV[5], ARGV[1])
