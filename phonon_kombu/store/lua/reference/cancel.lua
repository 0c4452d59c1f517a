--[[ reference/cancel: a holder leaves with its part undone.
KEYS    1 holders HASH   2 stalled HASH   3 about HASH
ARGV    1 holder   2 node   3 token   4 lease_ms ('' : frees it)
RETURNS 1 if it was the last one out and the caller is closer, else 0   ERRORS NOTHELD
STATES  held -> absent   COST O(1) ]]
--- @include now
local holders, stalled, about = KEYS[1], KEYS[2], KEYS[3]
--- @include let_go
if redis.call('HGET', holders, ARGV[1]) ~= ARGV[2] then
  return redis.error_reply('NOTHELD the holder does not hold it on this node')
end
return let_go(ARGV[1], ARGV[3], now(), ARGV[4])
