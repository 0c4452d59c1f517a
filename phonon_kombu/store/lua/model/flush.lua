--[[ model/flush: a holder of a record folds what it has gathered: all of it, or nothing.
KEYS    1 row HASH   2 holders SET   3 senders HASH   4 seen SET
        5+ collections (in the layout's order)
ARGV    1 owner   2 number (of its delta, growing)   3 id (JSON)   4 messages (how many)
        5 acknowledged (how many)   6+ words: ids of the messages that the values came with, ids
        of messages that were acknowledged, the delta
RETURNS 1; 0 if this delta has been folded already; those of the messages that have been folded
        before, if there are any: then nothing is
ERRORS  NOTHELD, CLOSING, OVERFLOW, FIELDFULL, MISMATCH   COST O(entries * log size) ]]
local row, seen, collections = KEYS[1], KEYS[4], {}
for i = 5, #KEYS do
  collections[i - 4] = KEYS[i]
end
local ids, acknowledged, delta, known = {}, {}, {}, tonumber(ARGV[4])
for i = 6, #ARGV do
  local n = i - 5
  local part = n <= known and ids or n <= known + ARGV[5] and acknowledged or delta
  part[#part + 1] = ARGV[i]
end
--- @include fold
--- @include messages
if tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0) >= tonumber(ARGV[2]) then
  return 0
end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOTHELD this owner does not hold the record')
end
if redis.call('HEXISTS', row, '~closer') == 1 then
  return redis.error_reply('CLOSING the record is being completed')
end
local before = folded(ids)
if #before > 0 then
  return before
end
local refusal = unfoldable(delta)
if refusal then
  return refusal
end
redis.call('HSET', row, '~id', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
-- For a day: the server may be away for long before a lost reply is asked for again.
redis.call('PEXPIRE', KEYS[3], 86400000)
note(ids, acknowledged)
fold(delta)
return 1
