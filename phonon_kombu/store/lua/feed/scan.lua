--[[ feed/scan: a slice of a feed's items, and a mark among the notices that says where it was read.
Whoever is subscribed to the mark's channel knows of each notice whether the slice has seen it.
KEYS    1 items HASH
ARGV    1 cursor ('0' to begin)   2 channel   3 mark
RETURNS the next cursor ('0': that was all), then id and item of each   ERRORS none
COST    O(slice), a slice is about 200 items ]]
local scan = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 200)
redis.call('PUBLISH', ARGV[2], ARGV[3])
table.insert(scan[2], 1, scan[1])
return scan[2]
