--[[ job/census: do the ids lists have as many entries as there are ready jobs?
If they do not, a foreign client may have popped an id and died before it claimed the job.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 ghosts HASH
        6+ levels LIST (all ten, level 0 first)
ARGV    none
RETURNS how many jobs are ready, how many entries stand for a job (-1: too many ghosts to count)
ERRORS  none   STATES unchanged   COST O(ghosts), at most 500 ]]
local ready = redis.call('HLEN', KEYS[1]) - redis.call('ZCARD', KEYS[2])
  - redis.call('ZCARD', KEYS[3]) - redis.call('SCARD', KEYS[4])
if redis.call('HLEN', KEYS[5]) > 500 then
  return { ready, -1 }
end
local entries = 0
for i = 6, #KEYS do
  entries = entries + redis.call('LLEN', KEYS[i])
end
for _, count in ipairs(redis.call('HVALS', KEYS[5])) do
  entries = entries - count
end
return { ready, entries }
