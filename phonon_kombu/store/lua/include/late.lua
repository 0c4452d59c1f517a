--[[ A claim that was taken from an owner who was taken for dead leaves a mark in the place of the
owner, until the job is claimed again: `late:<when the job was put>:<owner>`. That owner may still
say that the job is done. A job that was put under the same id since was put at another time.
late_mark(put_at, owner): the mark.
is_late(id, held_by, owner): is `held_by` the mark of `owner`, and is the job still as it was given
back: ready, and nobody's? Needs the locals `claimed` and `published`.
COST two commands where there is such a mark, else none ]]
local function late_mark(put_at, owner)
  return 'late:' .. put_at .. ':' .. owner
end
local function is_late(id, held_by, owner)
  if not held_by or string.sub(held_by, 1, 5) ~= 'late:' then
    return false
  end
  local put_at = redis.call('ZSCORE', published, id)
  return put_at and held_by == late_mark(put_at, owner)
    and not redis.call('ZSCORE', claimed, id)
end
