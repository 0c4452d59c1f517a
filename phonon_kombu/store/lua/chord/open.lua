--[[ chord/open: a chord waits for its parts from now on.
A chord that is there under this id already is begun anew, unless it was opened for the same cause.
KEYS    1 chord HASH   2 arrived LIST   3 seen STRING   4 members SET   5 closing ZSET
        6 opened ZSET   7+ fields (of the aggregate, if there is one)
ARGV    1 group   2 cause ('' none: else a chord that was opened for it is left alone)
        3 expires_seconds ('' never)   4+ fields of the chord, each with its value
RETURNS 1, or 0 where it was left alone   ERRORS none   STATES absent, closed -> open
COST    O(fields + log opened) ]]
--- @include now
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'cause') == ARGV[2] then
  return 0
end
local at = now()
local fields = { unpack(ARGV, 4) }
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], unpack(KEYS, 7))
redis.call('HSET', KEYS[1], 'state', 'open', 'opened', at, 'cause', ARGV[2], unpack(fields))
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZADD', KEYS[6], at, ARGV[1])
if ARGV[3] ~= '' and ARGV[3] ~= '0' then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  -- Chords that were never closed have ended by now; one that goes on for so long is left out, too.
  local ended = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', at - 2000 * ARGV[3], 'LIMIT', 0, 20)
  if #ended > 0 then
    redis.call('ZREM', KEYS[6], unpack(ended))
  end
end
return 1
