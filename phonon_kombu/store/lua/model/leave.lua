--[[ model/leave: a holder folds the rest and lets go of the record. The last one out is to
complete it: until it has (close), nothing more is folded into it.
KEYS    1 row HASH   2 holders SET   3 senders HASH   4+ collections (in the layout's order)
ARGV    1 owner   2 number (of its delta, growing)   3 id (JSON)
        4 length (of the delta to fold when others hold it)   5+ deltas (that one, then the part
        of it to fold when it is the last)
RETURNS 0 if others hold the record, 1 if it is the caller's to complete; the same when repeated
ERRORS  NOTHELD, CLOSING, OVERFLOW, FIELDFULL, MISMATCH   COST O(entries * log size) ]]
local row, collections, all, closing = KEYS[1], {}, {}, {}
for i = 4, #KEYS do
  collections[i - 3] = KEYS[i]
end
local closer = redis.call('HGET', row, '~closer')
if tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0) >= tonumber(ARGV[2]) then
  return closer == ARGV[1] and 1 or 0
end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOTHELD this owner does not hold the record')
end
if closer then
  return redis.error_reply('CLOSING the record is being completed')
end
local last, length = redis.call('SCARD', KEYS[2]) == 1, tonumber(ARGV[4])
for i = 5, #ARGV do
  local delta = i - 4 > length and closing or all
  delta[#delta + 1] = ARGV[i]
end
--- @include fold
-- What the last one out keeps in its memory must have its place too.
local refusal = unfoldable(all)
if refusal then
  return refusal
end
redis.call('HSET', row, '~id', ARGV[3])
if last then
  redis.call('HSET', row, '~closer', ARGV[1])
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[3], 600000)
fold(last and closing or all)
redis.call('SREM', KEYS[2], ARGV[1])
return last and 1 or 0
