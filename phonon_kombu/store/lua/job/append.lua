--[[ job/append: put a job of level 0 behind all others: job/put for what most messages are.
It does half of the commands. The same id with the same item again is a no-op; if another job has
the id, `other_id` is taken instead where one is given. A queue with rules or with a lifetime
refuses: job/put knows them.
KEYS    1 items HASH   2 ids LIST   3 published ZSET   4 publishes STRING   5 wake ZSET
        6 config HASH
ARGV    1 id   2 item   3 other_id ('' none)
RETURNS the id taken   ERRORS EXISTS, RULED   STATES absent -> ready   COST O(log n) ]]
--- @include now
local items = KEYS[1]
--- @include accept
if redis.call('HEXISTS', KEYS[6], 'rules') == 1 then
  return redis.error_reply('RULED the queue has rules')
end
local id, new = accept(ARGV[1], ARGV[3], ARGV[2])
if not id then
  return redis.error_reply('EXISTS another job has this id')
end
if new then
  redis.call('ZADD', KEYS[3], now(), id)
  redis.call('INCR', KEYS[4])
  if redis.call('LPUSH', KEYS[2], id) == 1 then
    -- Where entries stand before it, a wake stands for them, or somebody is about to claim.
    redis.call('ZADD', KEYS[5], 0, 'w')
  end
end
return id
