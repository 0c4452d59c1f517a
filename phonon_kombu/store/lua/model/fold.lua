--[[ model/fold: fold one record's delta into its aggregate: all of it, or nothing.
KEYS    1 row HASH   2+ collections (of the record's layout, in its order)
ARGV    1 sender ('' : not guarded against repetition)   2 number (of the sender's delta, growing)
        3 ttl_ms ('' for ever)   4+ delta
RETURNS 1; 0 if this delta, or one with a higher number, has been folded already
ERRORS  OVERFLOW, FIELDFULL, MISMATCH   COST O(entries * log size) ]]
local row, collections, delta = KEYS[1], {}, {}
for i = 2, #KEYS do
  collections[i - 1] = KEYS[i]
end
for i = 4, #ARGV do
  delta[i - 3] = ARGV[i]
end
--- @include fold
local sender = '~' .. ARGV[1]
if ARGV[1] ~= '' then
  if tonumber(redis.call('HGET', row, sender) or 0) >= tonumber(ARGV[2]) then
    return 0
  end
end
local refusal = unfoldable(delta)
if refusal then
  return refusal
end
if ARGV[1] ~= '' then
  redis.call('HSET', row, sender, ARGV[2])
end
fold(delta)
if ARGV[3] ~= '' then
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], ARGV[3])
  end
end
return 1
