--[[ fold(delta): add one record's delta to its aggregate; first ask unfoldable(delta).
Needs the locals `row` (HASH of the record's numbers) and `collections` (the keys of the fields
that have one, in the order of the layout).
The delta: op, slot, how many arguments, the arguments; and again for the next field.
  int, float   slot: field of the row   args: amount
  min, max     slot: field of the row   args: value
  list, set    slot: number of the collection:name   args: bound ('' none), entries
  window       the same   args: length, span ('' none), score, entry, score, entry, ...
  top          the same   args: length, GT or LT (which score is better), score, entry, ...
  distinct     the same   args: entries
COST O(entries * log size); the sender keeps it below 20,000 arguments ]]
--- @include digits
--- @include foldable
local function fold(delta)
  local i = 1
  while i <= #delta do
    local op, slot, first = delta[i], delta[i + 1], i + 3
    local last = first - 1 + delta[i + 2]
    local value, key = delta[first], collections[tonumber(slot:match('^%d+'))]
    if op == 'int' then
      redis.call('HINCRBY', row, slot, value)
    elseif op == 'float' then
      -- Not HINCRBYFLOAT: it keeps 17 digits behind the point, nothing of what is smaller.
      local sum = (redis.call('HGET', row, slot) or 0) + value
      redis.call('HSET', row, slot, string.format('%.17g', sum))
    elseif op == 'min' or op == 'max' then
      local stored = redis.call('HGET', row, slot)
      if not stored or (op == 'min' and less(value, stored))
        or (op == 'max' and less(stored, value)) then
        redis.call('HSET', row, slot, value)
      end
    else
      local ranked = op == 'window' or op == 'top'
      local from = first + (ranked and 2 or op == 'distinct' and 0 or 1)
      for at = from, last, 500 do
        local upto = math.min(at + 499, last)
        if op == 'list' then
          redis.call('RPUSH', key, unpack(delta, at, upto))
        elseif op == 'set' then
          redis.call('SADD', key, unpack(delta, at, upto))
        elseif op == 'distinct' then
          redis.call('PFADD', key, unpack(delta, at, upto))
        elseif op == 'window' then
          redis.call('ZADD', key, unpack(delta, at, upto))
        else
          redis.call('ZADD', key, delta[first + 1], unpack(delta, at, upto))
        end
      end
      if op == 'window' and delta[first + 1] ~= '' then
        local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
        local oldest = string.format('(%.17g', newest - delta[first + 1])
        redis.call('ZREMRANGEBYSCORE', key, '-inf', oldest)
      end
      if op == 'window' or (op == 'top' and delta[first + 1] == 'GT') then
        redis.call('ZREMRANGEBYRANK', key, 0, -value - 1)
      elseif op == 'top' then
        redis.call('ZREMRANGEBYRANK', key, value, -1)
      end
    end
    i = last + 1
  end
end
