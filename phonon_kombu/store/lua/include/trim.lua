--[[ trim(excess): retract the oldest items of a feed, 100 at the most, each with its notice.
Needs the locals `ids`, `items` and `retract_channel`. Returns how many are too many still.
COST O(log n) for each ]]
local function trim(excess)
  local oldest = redis.call('ZPOPMIN', ids, math.min(excess, 100))
  for i = 1, #oldest, 2 do
    redis.call('HDEL', items, oldest[i])
    redis.call('PUBLISH', retract_channel, oldest[i])
  end
  return excess - #oldest / 2
end
