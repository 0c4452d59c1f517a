--[[ reference/recover: give back a slice of what a dead node held.
KEYS    1 holders HASH   2 stalled HASH   3 about HASH
ARGV    1 node   2 cursor ('0' to begin)   3 token   4 lease_ms ('' : frees it)
RETURNS the next cursor ('0': that was all), how many were given back, 1 if nobody is left and the
        caller is closer, else 0   ERRORS none   STATES held -> absent   COST O(slice), about 200 ]]
--- @include now
local holders, stalled, about = KEYS[1], KEYS[2], KEYS[3]
--- @include let_go
local scan, given, last = redis.call('HSCAN', holders, ARGV[2], 'COUNT', 200), 0, 0
for i = 1, #scan[2], 2 do
  if scan[2][i + 1] == ARGV[1] then
    given = given + 1
    last = let_go(scan[2][i], ARGV[3], now(), ARGV[4])
  end
end
return { scan[1], given, last }
