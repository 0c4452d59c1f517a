--[[ model/close: a record has been completed by its closer: delete its aggregate.
KEYS    1 row HASH   2 senders HASH (for ten minutes more)   3+ collections
ARGV    1 owner
RETURNS 1; 0 if it is not the closer (any more)   ERRORS none   COST O(1) ]]
if redis.call('HGET', KEYS[1], '~closer') ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[2], 600000)
redis.call('UNLINK', KEYS[1], unpack(KEYS, 3))
return 1
