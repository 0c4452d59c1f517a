--[[ model/flush: a holder of a record folds what it has gathered: all of it, or nothing.
KEYS    1 row HASH   2 holders SET   3 senders HASH   4+ collections (in the layout's order)
ARGV    1 owner   2 number (of its delta, growing)   3 id (JSON)   4+ delta
RETURNS 1; 0 if this delta has been folded already
ERRORS  NOTHELD, CLOSING, OVERFLOW, FIELDFULL, MISMATCH   COST O(entries * log size) ]]
local row, collections, delta = KEYS[1], {}, {}
for i = 4, #KEYS do
  collections[i - 3] = KEYS[i]
end
for i = 4, #ARGV do
  delta[i - 3] = ARGV[i]
end
--- @include fold
if tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0) >= tonumber(ARGV[2]) then
  return 0
end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
  return redis.error_reply('NOTHELD this owner does not hold the record')
end
if redis.call('HEXISTS', row, '~closer') == 1 then
  return redis.error_reply('CLOSING the record is being completed')
end
local refusal = unfoldable(delta)
if refusal then
  return refusal
end
redis.call('HSET', row, '~id', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[3], 600000)
fold(delta)
return 1
