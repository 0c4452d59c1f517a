--[[ chord/arrive: a part's result is kept, and the part arrives at its chord. The one who brings
the last part, or comes again when the lease of a dead closer has ended, becomes closer.
KEYS    1 chord HASH   2 arrived LIST   3 seen STRING   4 members SET   5 closing ZSET
        6 result STRING (its name is the channel, too)
ARGV    1 group   2 task_id   3 index ('' none: else below 2^23)   4 part ('' a failed one's too)
        5 failed ('1')   6 token   7 lease_ms   8 expires_seconds ('' never)
        9 value ('' the result is kept elsewhere)   10 ttl_seconds   11 head   12 success
        13 expected (as result/store)
RETURNS what (0 waits, 1 the caller is closer, 2 not counted, 3 there is no such chord,
        4 nothing was done: the caller has to judge the stored result), parts so far;
        where the caller is closer: its size and whether it is nested, where he has to judge: the
        stored result   ERRORS none   STATES open -> open, closing; closing -> closing
COST    O(log closing) ]]
--- @include now
--- @include store
local chord, seen, members, closing = KEYS[1], KEYS[3], KEYS[4], KEYS[5]
--- @include complete
--- @include answer
--- @include arrival
if ARGV[9] ~= '' then
  local stored = store(KEYS[6], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13])
  if type(stored) == 'string' then
    return { 4, stored }
  end
end
local found = redis.call('HMGET', chord, 'state', 'closer', 'until', 'nested', 'size', 'grown')
local state = found[1]
if not state then
  return { 3, 0 }
end
local count, what = 0, 2
if state == 'open' and arrival(ARGV[2], ARGV[3]) then
  if ARGV[4] ~= '' then
    redis.call('RPUSH', KEYS[2], ARGV[3] .. ':' .. ARGV[4])
  end
  count = redis.call('HINCRBY', chord, 'arrived', 1)
  what = 0
  if ARGV[5] == '1' then
    redis.call('HINCRBY', chord, 'failed', 1)
  end
  if ARGV[8] ~= '' and ARGV[8] ~= '0'
    and (count == 1 or redis.call('TTL', chord) * 10 < ARGV[8] * 9) then
    for i = 1, 4 do
      redis.call('EXPIRE', KEYS[i], ARGV[8])
    end
  end
end
return answer(found, what, count, ARGV[6], ARGV[7], ARGV[1])
