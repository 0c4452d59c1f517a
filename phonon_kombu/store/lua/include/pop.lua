--[[ pop(count, at): take up to `count` jobs from the ready ones, in the order of `order`.
Leaves out what no longer stands for a job: entries of jobs that were stalled or retracted while
ready (counted in `ghosts`), ids without an item. Drops jobs whose deadline is before `at` (ms).
Returns their ids and items, and whether more may be ready.
Needs drop() and the locals `items`, `ghosts`, `deadlines`, `order` (the lists, first to take).
COST O(count), bounded: after 500 leftovers it returns what it has,
and it takes 1,000 at the most ]]
local function pop(count, at)
  count = math.min(count, 1000)
  local ids, bodies, expired, remains = {}, {}, {}, {}
  local left_over, level = 0, 1
  local haunted = redis.call('EXISTS', ghosts) == 1
  local mortal = redis.call('EXISTS', deadlines) == 1
  while #ids < count and order[level] and left_over < 500 do
    local popped = redis.call('RPOP', order[level], count - #ids)
    if not popped or #popped == 0 then
      level = level + 1
    else
      local taken, before = popped, #ids
      if haunted then
        taken = {}
        for _, id in ipairs(popped) do
          local entries = redis.call('HINCRBY', ghosts, id, -1)
          if entries < 0 then
            redis.call('HDEL', ghosts, id)
            taken[#taken + 1] = id
          elseif entries == 0 then
            redis.call('HDEL', ghosts, id)
          end
        end
      end
      if #taken > 0 then
        local found = redis.call('HMGET', items, unpack(taken))
        local ends = mortal and redis.call('ZMSCORE', deadlines, unpack(taken))
        for i, id in ipairs(taken) do
          if found[i] then
            if ends and ends[i] and tonumber(ends[i]) <= at then
              expired[#expired + 1] = id
              remains[#expired] = found[i]
            else
              ids[#ids + 1] = id
              bodies[#bodies + 1] = found[i]
            end
          end
        end
      end
      left_over = left_over + #popped - (#ids - before)
    end
  end
  if #expired > 0 then
    drop(expired, remains, 'expired', at)
  end
  return ids, bodies, redis.call('EXISTS', unpack(order)) > 0
end
