--[[ job/page: a slice of the jobs in one state, in order: ready and claimed ones by their time of
put or claim, scheduled ones by when they fall due; stalled ones in none.
The cursor is the place of the last job that was looked at: jobs that come and go meanwhile make
no other job come twice or not at all, but for those of the same millisecond.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 published ZSET
        6 cancelled HASH   7 owners HASH   8 reasons HASH   9 priorities HASH   10 deadlines ZSET
ARGV    1 state (ready, scheduled, claimed, stalled)   2 cursor ('' to begin)
        3 limit (jobs to look at, 200 at the most; about so many of the stalled ones)
        4 before (ms: only those put before; '' any)
RETURNS the next cursor ('': that was all), then as job/lookup
ERRORS  none   STATES unchanged   COST O(limit * log n), and the size of the items ]]
--- @include now
local items, claimed, scheduled, stalled, published = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local cancelled, owners, reasons, priorities = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local deadlines, whole = KEYS[10], false
--- @include state
--- @include record
local wanted, cursor = ARGV[1], ARGV[2]
local limit = math.max(1, math.min(tonumber(ARGV[3]), 200))
local before = tonumber(ARGV[4])
local found, next_cursor = {}, ''
if wanted == 'stalled' then
  local scan = redis.call('SSCAN', stalled, cursor == '' and '0' or cursor, 'COUNT', limit)
  found, next_cursor = scan[2], scan[1] == '0' and '' or scan[1]
else
  local order = ({ ready = published, claimed = claimed, scheduled = scheduled })[wanted]
  local top = order == published and before and '(' .. before or '+inf'
  local entries
  local score, last = string.match(cursor, '^([^:]*):(.*)$')
  local rank = last and redis.call('ZSCORE', order, last) == score
    and redis.call('ZRANK', order, last)
  if rank then
    entries = redis.call('ZRANGE', order, rank + 1, rank + limit, 'WITHSCORES')
  else
    entries = redis.call('ZRANGEBYSCORE', order, score or '-inf', top, 'WITHSCORES',
      'LIMIT', 0, limit)
  end
  for i = 1, #entries, 2 do
    if top ~= '+inf' and tonumber(entries[i + 1]) >= before then
      entries = {}
      break
    end
    found[#found + 1] = entries[i]
  end
  if #entries == 2 * limit then
    next_cursor = entries[#entries] .. ':' .. entries[#entries - 1]
  end
end
local reply = { next_cursor, now() }
for _, id in ipairs(found) do
  local state = state_of(id)
  local put = before and tonumber(redis.call('ZSCORE', published, id) or '')
  if state == wanted and (not before or (put and put < before)) then
    local item = redis.call('HGET', items, id)
    if item then
      record(reply, id, state, item)
    end
  end
end
return reply
