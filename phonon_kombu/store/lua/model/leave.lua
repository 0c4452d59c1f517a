--[[ model/leave: a holder folds the rest and lets go of the record. The last one out is to
complete it: until it has (close), nothing more is folded into it.
KEYS    1 row HASH   2 holders SET   3 senders HASH   4 seen SET
        5+ collections (in the layout's order)
ARGV    1 owner   2 number (of its delta, growing)   3 id (JSON)   4 messages (how many)
        5 acknowledged (how many)   6 length (of the first delta)
        7 marks (t: the last message's values are not folded by the last one out; n: nothing was
        registered, or only what had been before)
        8+ words: messages and acknowledged ones as for flush, the delta to fold when others hold
        the record, the part of it to fold when it is the last
RETURNS 0 if others hold the record or there is none, 1 if it is the caller's to complete, the
        same when repeated, but 2 if it was and has been given to others, taken for dead as we
        were; messages that have been folded before as flush does
ERRORS  NOTHELD, CLOSING, OVERFLOW, FIELDFULL, MISMATCH   COST O(entries * log size) ]]
local row, seen, collections = KEYS[1], KEYS[4], {}
for i = 5, #KEYS do
  collections[i - 4] = KEYS[i]
end
local ids, acknowledged, all, closing = {}, {}, {}, {}
local known = tonumber(ARGV[4])
local told = known + ARGV[5]
for i = 8, #ARGV do
  local n = i - 7
  local part = n <= known and ids or n <= told and acknowledged or n <= told + ARGV[6] and all
  part = part or closing
  part[#part + 1] = ARGV[i]
end
--- @include fold
--- @include messages
--- @include now
local closer = redis.call('HGET', row, '~closer')
if tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0) >= tonumber(ARGV[2]) then
  if closer == ARGV[1] then
    return 1
  end
  return redis.call('HGET', KEYS[3], '~' .. ARGV[1]) == ARGV[2] and 2 or 0
end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOTHELD this owner does not hold the record')
end
if closer then
  return redis.error_reply('CLOSING the record is being completed')
end
local before = folded(ids)
if #before > 0 then
  return before
end
-- What the last one out keeps in its memory must have its place too.
local refusal = unfoldable(all)
if refusal then
  return refusal
end
local last = redis.call('SCARD', KEYS[2]) == 1
if last and ARGV[7]:find('n') and redis.call('EXISTS', row) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
  return 0
end
redis.call('HSET', row, '~id', ARGV[3])
if last then
  redis.call('HSET', row, '~closer', ARGV[1], '~since', now())
  redis.call('HSET', KEYS[3], '~' .. ARGV[1], ARGV[2])
  if ARGV[7]:find('t') then
    ids[#ids] = nil
  end
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
-- For a day: the server may be away for long before a lost reply is asked for again.
redis.call('PEXPIRE', KEYS[3], 86400000)
note(ids, acknowledged)
fold(last and closing or all)
redis.call('SREM', KEYS[2], ARGV[1])
return last and 1 or 0
