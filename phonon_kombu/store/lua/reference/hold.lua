--[[ reference/hold: a holder uses the resource, on a node. One that is stalled stays so.
KEYS    1 holders HASH   2 stalled HASH   3 about HASH
ARGV    1 holder   2 node
RETURNS how many hold it, stalled ones among them   ERRORS CLOSING
STATES  absent, held -> held   COST O(1) ]]
if redis.call('HEXISTS', KEYS[3], 'closer') == 1 then
  return redis.error_reply('CLOSING the last one out is at work')
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return redis.call('HLEN', KEYS[1]) + redis.call('HLEN', KEYS[2])
