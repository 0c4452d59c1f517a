--[[ model/hold: an owner works on a record, until it leaves.
KEYS    1 holders SET
ARGV    1 owner
RETURNS how many hold it   ERRORS none   COST O(1) ]]
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('SCARD', KEYS[1])
