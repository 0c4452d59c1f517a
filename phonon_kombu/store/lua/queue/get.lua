--[[ queue/get: take the next item and delete it: nobody else gets it.
Leaves a wake when more wait, else takes it away. Ids without an item are left out.
KEYS    1 config HASH   2 items HASH   3 ids LIST   4 wake ZSET
ARGV    1 type
RETURNS the item (nil: there is none)   ERRORS NOFEED: the name is another's
STATES  ready -> absent
COST    O(1), bounded: after 100 ids without an item it returns nil and leaves a wake ]]
local now = redis.call('HGET', KEYS[1], 'type')
if now and now ~= ARGV[1] then
  return redis.error_reply('NOFEED there is no queue of this name and kind (any more)')
end
local item
for _ = 1, 100 do
  local id = redis.call('RPOP', KEYS[3])
  if not id then
    break
  end
  item = redis.call('HGET', KEYS[2], id)
  if item then
    redis.call('HDEL', KEYS[2], id)
    break
  end
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('ZADD', KEYS[4], 0, 'w')
else
  redis.call('DEL', KEYS[4])
end
return item or false
