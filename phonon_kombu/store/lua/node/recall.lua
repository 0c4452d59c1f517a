--[[ node/recall: a node that nobody knows holds claims: it is dead, and its claims are to be given
back. It was taken for dead and forgotten, claimed again, and was killed before it had joined again;
or it has said goodbye without giving back what it held.
KEYS    1 beats ZSET   2 dying ZSET   3 held SET
ARGV    1 node   2 grace_ms (it is dead after so long, unless it joins)
        3+ queues of which it holds jobs, as their keys have them
RETURNS 1, or 0 if it is known   ERRORS none   COST O(log nodes + queues) ]]
--- @include now
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
redis.call('SADD', KEYS[3], unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], now() + ARGV[2], ARGV[1])
return 1
