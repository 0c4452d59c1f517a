--[[ state_of(id): the state of a job that exists.
`ready` is a job that is in no other state, whether or not an ids list has it.
Needs the locals `claimed`, `scheduled`, `stalled`.
COST up to three commands, O(log n) ]]
local function state_of(id)
  if redis.call('ZSCORE', claimed, id) then
    return 'claimed'
  elseif redis.call('SISMEMBER', stalled, id) == 1 then
    return 'stalled'
  elseif redis.call('ZSCORE', scheduled, id) then
    return 'scheduled'
  end
  return 'ready'
end
