--[[ forget(ids, plain): delete jobs whose place in a state has been dropped already.
With `plain` the caller knows that no job has any of the parts that few jobs have.
Needs the locals `items`, `published`, `cancelled`, `priorities`, `deadlines`.
COST two commands, one more if not `plain`, and three where those parts exist ]]
local function forget(ids, plain)
  redis.call('HDEL', items, unpack(ids))
  redis.call('ZREM', published, unpack(ids))
  if not plain and redis.call('EXISTS', cancelled, priorities, deadlines) > 0 then
    redis.call('HDEL', cancelled, unpack(ids))
    redis.call('HDEL', priorities, unpack(ids))
    redis.call('ZREM', deadlines, unpack(ids))
  end
end
