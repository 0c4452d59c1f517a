--[[ job/put: add a job, ready at once or scheduled, as the queue's rules allow.
The same id with the same item again is a no-op, so a put whose reply was lost can be repeated.
If another job has the id, `other_id` is taken instead where one is given. A job whose
deduplication id another one has is left out. Rules (config): `message_ttl` (ms, from when it is
ready), `max_length` (of the ready ones), `overflow`, `dead_exchange`.
KEYS    1 config HASH   2 items HASH   3 ids LIST   4 published ZSET   5 publishes STRING
        6 wake ZSET   7 scheduled ZSET   8 priorities HASH   9 deadlines ZSET   10 cancelled HASH
        11 ghosts HASH   12 claimed ZSET   13 stalled SET   14 dead LIST   15 unique HASH
        16 unique_ends ZSET   17 duplicates STRING   18+ levels LIST (all ten, level 0 first)
ARGV    1 id   2 item   3 other_id ('' none)   4 level (0-9; KEYS 3 is its list)
        5 front ('1': before all others)   6 due_ms (from now, '' ready)   7 ttl_ms ('' none)
        8 binding ('' none: else a field that config must have)
        9 dedup_id ('' none)   10 dedup_ttl_ms ('' for as long as the job exists)
        11 dedup_of (the job that this one succeeds may have the same)
        12 order ('highest': jobs of level 0 are dropped first, else of level 9)
RETURNS the id taken; for a duplicate {the id of the job that has the deduplication id}
ERRORS  EXISTS, UNBOUND, QUEUEFULL   STATES absent -> ready, scheduled; ready -> absent
COST    O(log n), and O(log n) for each of up to 100 jobs that are dropped ]]
--- @include now
local items, config, published, cancelled = KEYS[2], KEYS[1], KEYS[4], KEYS[10]
local priorities, deadlines, ghosts, dead = KEYS[8], KEYS[9], KEYS[11], KEYS[14]
local taken, ends, holders = KEYS[15], KEYS[16], { KEYS[12], KEYS[7], KEYS[13] }
local front, dedup_id, order = ARGV[5] == '1', ARGV[9] or '', {}
local rules = redis.call(
  'HMGET', config, ARGV[8], 'message_ttl', 'max_length', 'overflow', 'dead_exchange'
)
local lettered, longest, rejects = rules[5], tonumber(rules[3]), rules[4] == 'reject-publish'
--- @include accept
--- @include forget
--- @include drop
--- @include pop
--- @include unique
--- @include room
--- @include admit
--- @include lifetime
local at, due_ms = now(), tonumber(ARGV[6]) or 0
local answer = admit(at, due_ms)
if answer then
  return answer
end
local id, new = accept(ARGV[1], ARGV[3], ARGV[2])
if not new then
  return id or redis.error_reply('EXISTS another job has this id')
end
redis.call('ZADD', published, at, id)
redis.call('INCR', KEYS[5])
if ARGV[4] ~= '0' then
  redis.call('HSET', priorities, id, ARGV[4])
end
local ttl_ms = tonumber(ARGV[7])
if rules[2] then
  ttl_ms = math.min(ttl_ms or math.huge, math.max(0, due_ms) + rules[2])
end
if ttl_ms then
  redis.call('ZADD', deadlines, at + ttl_ms, id)
end
if dedup_id ~= '' then
  sweep(at, 10)
  reserve(dedup_id, id, ARGV[10], at)
end
if due_ms > 0 then
  redis.call('ZADD', KEYS[7], at + due_ms, id)
  -- Whoever waits must learn of an earlier end of its wait.
  if redis.call('ZRANGE', KEYS[7], 0, 0)[1] == id then
    redis.call('ZADD', KEYS[6], 0, 'w')
  end
else
  if front and longest and not rejects then
    shorten(at) -- now: in its place it would be the oldest, and the first to go
    longest = nil
  end
  redis.call(front and 'RPUSH' or 'LPUSH', KEYS[3], id)
  redis.call('ZADD', KEYS[6], 0, 'w')
end
if longest and not rejects then
  shorten(at)
end
return lifetime(id)
