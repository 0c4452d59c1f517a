--[[ another(config, type, links): a refusal if the feed is not what the caller takes it for: it was
deleted, or made anew since, of another type or (nil: all the same) with its order kept otherwise.
COST one command ]]
local function another(config, type, links)
  local now = redis.call('HMGET', config, 'type', 'order')
  if now[1] ~= type or links ~= nil and (now[2] == 'links') ~= links then
    return redis.error_reply('NOFEED there is no feed of this name and kind (any more)')
  end
end
