--[[ forget(ids): delete jobs whose place in a state has been dropped already.
Needs the locals `items`, `published`, `cancelled`, `priorities`, `deadlines`.
COST three commands, up to three more where the parts that few jobs have exist ]]
local function forget(ids)
  redis.call('HDEL', items, unpack(ids))
  redis.call('ZREM', published, unpack(ids))
  if redis.call('EXISTS', cancelled, priorities, deadlines) > 0 then
    redis.call('HDEL', cancelled, unpack(ids))
    redis.call('HDEL', priorities, unpack(ids))
    redis.call('ZREM', deadlines, unpack(ids))
  end
end
