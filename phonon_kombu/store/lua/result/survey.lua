--[[ result/survey: which of these tasks have succeeded, and what is known of the others.
KEYS    1+ results STRING
ARGV    1 success (how the result of a success begins, '' unknown)
RETURNS for each: 1 succeeded, 0 nothing known, or what is stored
ERRORS  none   COST O(keys), the caller asks for 200 at the most ]]
local found = {}
for i, key in ipairs(KEYS) do
  local start = redis.call('GETRANGE', key, 0, 63)
  if start == '' then
    found[i] = 0
  elseif ARGV[1] ~= '' and string.sub(start, 1, #ARGV[1]) == ARGV[1] then
    found[i] = 1
  else
    found[i] = redis.call('GET', key)
  end
end
return found
