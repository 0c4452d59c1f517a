--[[ chord/grow: a chord has one part more.
KEYS    1 chord HASH   2 members SET
ARGV    1 task_id (of that part)   2 expires_seconds ('' never)
RETURNS by how many it has grown; 0 if it is not open   ERRORS none   STATES open -> open
COST    O(1) ]]
if redis.call('HGET', KEYS[1], 'state') ~= 'open' then
  return 0
end
-- Its index is that of the task that has added it: it counts by its name.
if redis.call('SADD', KEYS[2], '+' .. ARGV[1]) == 0 then
  return redis.call('HINCRBY', KEYS[1], 'grown', 0)
end
if ARGV[2] ~= '' and ARGV[2] ~= '0' then
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return redis.call('HINCRBY', KEYS[1], 'grown', 1)
