--[[ job/lookup: what is known of jobs, by their ids.
KEYS    1 items HASH   2 claimed ZSET   3 scheduled ZSET   4 stalled SET   5 published ZSET
        6 cancelled HASH   7 owners HASH   8 reasons HASH   9 priorities HASH   10 deadlines ZSET
ARGV    1+ ids (a few hundred at the most)
RETURNS the server's clock (ms), then for each job that exists: its id, its state, when it was put
        (ms; '' for a stalled one), when it was claimed, when it falls due, when it expires ('' each
        if it does not), how often it was cancelled ('': never delivered before), its owner, why it
        is stalled, its level ('': 0), the size of its item, the item's first line: up to 16 KB
        of it, all of it where a single job is asked for
ERRORS  none   STATES unchanged   COST O(ids * log n), and the size of their items ]]
--- @include now
local items, claimed, scheduled, stalled, published = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local cancelled, owners, reasons, priorities = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local deadlines, whole = KEYS[10], #ARGV == 1
--- @include state
--- @include record
local reply = { now() }
for _, id in ipairs(ARGV) do
  local item = redis.call('HGET', items, id)
  if item then
    record(reply, id, state_of(id), item)
  end
end
return reply
