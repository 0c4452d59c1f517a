--[[ unfoldable(delta): why a delta cannot be folded: an error reply, or nil. Writes nothing.
OVERFLOW: a number would leave what it can hold. FIELDFULL: a list or set would outgrow its bound.
MISMATCH: the row holds something else, from a field of another type.
Needs overflows() and the locals `row` and `collections`. The delta is as fold() takes it.
COST a read for each number; for a set near its bound O(entries) ]]
local function unfoldable(delta)
  local i = 1
  while i <= #delta do
    local op, slot, first = delta[i], delta[i + 1], i + 3
    local last = first - 1 + delta[i + 2]
    local value = delta[first]
    if op == 'list' or op == 'set' then
      local key, bound = collections[tonumber(slot:match('^%d+'))], tonumber(value)
      local size = bound and redis.call(op == 'list' and 'LLEN' or 'SCARD', key) or 0
      if bound and size + last - first > bound then
        if op == 'set' then
          for at = first + 1, last, 500 do
            local upto = math.min(at + 499, last)
            for _, known in ipairs(redis.call('SMISMEMBER', key, unpack(delta, at, upto))) do
              size = size + 1 - known
            end
          end
        end
        if op == 'list' or size > bound then
          return redis.error_reply('FIELDFULL the field is full (max_size): ' .. slot)
        end
      end
    elseif op == 'int' or op == 'float' or op == 'min' or op == 'max' then
      local stored = redis.call('HGET', row, slot)
      if stored then
        if not tonumber(stored) or (op == 'int' and not stored:find('^%-?%d+$')) then
          return redis.error_reply('MISMATCH another type of field is stored: ' .. slot)
        end
        if (op == 'int' and overflows(stored, value))
          or (op == 'float' and math.abs(stored + value) == math.huge) then
          return redis.error_reply('OVERFLOW the field would leave its range: ' .. slot)
        end
      end
    end
    i = last + 1
  end
end
