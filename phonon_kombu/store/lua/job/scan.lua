--[[ job/scan: a slice of all jobs, each with its state. The items themselves are not sent.
`ready` is a job that is in no other state, whether or not an ids list has it.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 published ZSET
ARGV    1 cursor ('0' to begin)
RETURNS the next cursor ('0': that was all), then for each job its id, its state and when it was
        put (ms; '' for a stalled one)
ERRORS  none   STATES unchanged   COST O(slice), a slice is about 100 jobs ]]
local claimed, scheduled, stalled = KEYS[2], KEYS[3], KEYS[4]
--- @include state
-- Without NOVALUES (Redis before 7.4) the items are read here; none of them leaves the server.
local scan = redis.pcall('HSCAN', KEYS[1], ARGV[1], 'COUNT', 100, 'NOVALUES')
local step = 1
if scan.err then
  scan = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 100)
  step = 2
end
local reply = { scan[1] }
for i = 1, #scan[2], step do
  local id, n = scan[2][i], #reply
  reply[n + 1], reply[n + 2] = id, state_of(id)
  reply[n + 3] = redis.call('ZSCORE', KEYS[5], id) or ''
end
return reply
