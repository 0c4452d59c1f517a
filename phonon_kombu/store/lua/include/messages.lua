--[[ folded(ids): those of these messages whose values have been folded before.
note(ids, acknowledged): the ones have been folded now; the others will not come again.
Needs the local `seen` (SET of the messages that have been folded and may come again).
COST O(messages) ]]
local function folded(ids)
  local found = {}
  for at = 1, #ids, 500 do
    local upto = math.min(at + 499, #ids)
    for n, known in ipairs(redis.call('SMISMEMBER', seen, unpack(ids, at, upto))) do
      if known == 1 then
        found[#found + 1] = ids[at + n - 1]
      end
    end
  end
  return found
end
local function note(ids, acknowledged)
  for at = 1, #ids, 500 do
    redis.call('SADD', seen, unpack(ids, at, math.min(at + 499, #ids)))
  end
  for at = 1, #acknowledged, 500 do
    redis.call('SREM', seen, unpack(acknowledged, at, math.min(at + 499, #acknowledged)))
  end
  if #ids > 0 then
    redis.call('PEXPIRE', seen, 600000)
  end
end
