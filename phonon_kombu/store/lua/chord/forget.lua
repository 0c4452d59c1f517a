--[[ chord/forget: a part's result is deleted. A chord that points at it keeps it for itself.
KEYS    1 chord HASH   2 arrived LIST   3 result STRING
ARGV    1 kept (what the chord keeps in its place)
RETURNS 1, or 0 where the chord does not need it   ERRORS none
STATES  open -> open; closing -> closing   COST O(1) ]]
local state, needed = redis.call('HGET', KEYS[1], 'state'), false
if state == 'open' or state == 'closing' then
  needed = redis.call('RPUSHX', KEYS[2], ARGV[1]) > 0
end
redis.call('DEL', KEYS[3])
return needed and 1 or 0
