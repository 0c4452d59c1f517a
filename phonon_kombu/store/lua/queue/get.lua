--[[ queue/get: take the next item and delete it: nobody else gets it.
Leaves a wake when more wait, else takes it away. Ids without an item are left out.
KEYS    1 items HASH   2 ids LIST   3 wake ZSET
ARGV    none
RETURNS the item (nil: there is none)   ERRORS none   STATES ready -> absent
COST    O(1), bounded: after 100 ids without an item it returns nil and leaves a wake ]]
local item
for _ = 1, 100 do
  local id = redis.call('RPOP', KEYS[2])
  if not id then
    break
  end
  item = redis.call('HGET', KEYS[1], id)
  if item then
    redis.call('HDEL', KEYS[1], id)
    break
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('ZADD', KEYS[3], 0, 'w')
else
  redis.call('DEL', KEYS[3])
end
return item or false
