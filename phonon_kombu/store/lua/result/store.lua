--[[ result/store: keep a task's state or result and publish it; the first success stands.
KEYS    1 result STRING (its name is the channel, too)
ARGV    1 value   2 ttl_seconds ('' for ever)   3 head (how any result begins, '' unknown)
        4 success (how one of a success begins)   5 expected (SHA1 of what was judged before)
RETURNS 1 stored, 0 kept, or in an array the stored result, where the caller has to judge it
ERRORS  none   COST O(1) ]]
--- @include store
local stored = store(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return type(stored) == 'string' and { stored } or stored
