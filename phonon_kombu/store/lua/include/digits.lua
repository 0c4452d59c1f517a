--[[ less(a, b) and overflows(a, b): numbers as text, exact where doubles are not (beyond 2^53).
less: whether a < b. overflows: whether the whole number a + b leaves -(2^63 - 1) .. 2^63 - 1.
COST none ]]
local function less(a, b)
  local x, y = tonumber(a), tonumber(b)
  if x ~= y then
    return x < y
  end
  if a == b or not (a:find('^%-?%d+$') and b:find('^%-?%d+$')) then
    return false
  end
  local negative = a:sub(1, 1) == '-'
  if #a ~= #b then
    return (#a < #b) ~= negative
  end
  return (a < b) ~= negative
end
local function overflows(a, b)
  if (a:sub(1, 1) == '-') ~= (b:sub(1, 1) == '-') or math.abs(a + b) < 9.2e18 then
    return false
  end
  -- The last nine digits apart from the rest, each small enough for a double.
  a, b = a:match('%d+'), b:match('%d+')
  local low = a:sub(-9) + b:sub(-9)
  local high = (tonumber(a:sub(1, -10)) or 0) + (tonumber(b:sub(1, -10)) or 0)
  high, low = high + math.floor(low / 1e9), low % 1e9
  return high > 9223372036 or (high == 9223372036 and low > 854775807)
end
