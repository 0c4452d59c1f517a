--[[ reference/close: the last one out has done what there was to do: the resource is free again.
KEYS    1 about HASH
ARGV    1 token
RETURNS 1, or 0 if another is closer by now   ERRORS none   COST O(1) ]]
if redis.call('HGET', KEYS[1], 'closer') ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
