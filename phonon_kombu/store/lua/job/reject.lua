--[[ job/reject: these jobs are not wanted: they go to the dead-letter exchange, or nowhere.
Ids that `owner` does not hold are left alone.
KEYS    1 claimed ZSET   2 items HASH   3 published ZSET   4 cancelled HASH   5 owners HASH
        6 finishes STRING   7 priorities HASH   8 deadlines ZSET   9 config HASH   10 dead LIST
ARGV    1 owner ('' whoever holds them)   2+ ids
RETURNS how many were rejected, they wait for the dead-letter exchange (0/1)
ERRORS  none   STATES claimed -> absent   COST O(ids * log n) ]]
--- @include now
local items, published, cancelled = KEYS[2], KEYS[3], KEYS[4]
local priorities, deadlines, dead = KEYS[7], KEYS[8], KEYS[10]
local config = KEYS[9]
local lettered = redis.call('HGET', config, 'dead_exchange')
--- @include lifetime
--- @include forget
--- @include drop
local given = { unpack(ARGV, 2) }
local owners = redis.call('HMGET', KEYS[5], unpack(given))
local ids, bodies = {}, {}
for i, id in ipairs(given) do
  if (ARGV[1] == '' or owners[i] == ARGV[1]) and redis.call('ZREM', KEYS[1], id) == 1 then
    redis.call('HDEL', KEYS[5], id)
    ids[#ids + 1] = id
    bodies[#ids] = redis.call('HGET', items, id) or ''
  end
end
if #ids > 0 then
  drop(ids, bodies, 'rejected', now())
  redis.call('INCRBY', KEYS[6], #ids)
  lifetime()
end
return { #ids, lettered and 1 or 0 }
