--[[ job/claim: take up to `count` ready jobs for `owner`, those of the first list first, after
finishing the jobs that it is done with, as job/finish does.
Jobs that are due are promoted before. Leaves a wake when more are ready, else takes it away.
Of a paused queue nothing is taken, and no wake is left: job/resume leaves one. Where the rate
limit of the queue (config: `rate_interval`, ms a job; `rate_burst`, jobs at once) is reached, no
wake is left either, and the claimer is told when to come again.
KEYS    1 items HASH   2 claimed ZSET   3 owners HASH   4 cancelled HASH   5 scheduled ZSET
        6 published ZSET   7 wake ZSET   8 priorities HASH   9 deadlines ZSET   10 ghosts HASH
        11 config HASH   12 dead LIST   13 tokens STRING   14 finishes STRING
        15+ levels LIST (all ten, level 0 first)
ARGV    1 owner   2 count   3 order ('highest' takes level 9 first, else level 0)   4+ finished
RETURNS more ready (0/1), ms until one may be claimed (-1: unknown), then for each job
        its id, its item, how often it was cancelled (nil: never delivered before)
ERRORS  none   STATES ready -> claimed, scheduled -> ready, claimed -> absent, ready -> absent
COST    O((count + finished) * log n) ]]
--- @include now
local items, claimed, owners, cancelled, scheduled = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local published, wake, priorities, deadlines, ghosts = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local config, finishes, first, count = KEYS[11], KEYS[14], KEYS[15], tonumber(ARGV[2])
-- Most queues have none of these. (A job that was put again may stand in its old level's list.)
local few = { ghosts, deadlines, scheduled, cancelled, priorities, unpack(KEYS, 16) }
local plain = redis.call('EXISTS', unpack(few)) == 0
--- @include forget
--- @include lifetime
if ARGV[4] then
  --- @include late
  --- @include done
  local ids, late = held({ unpack(ARGV, 4) }, ARGV[1])
  plain = plain and late == 0
  done(ids, late, plain)
end
local rules = redis.call(
  'HMGET', config, 'paused', 'rate_interval', 'rate_burst', 'dead_exchange', 'expires'
)
if rules[1] then
  redis.call('DEL', wake)
  return { 0, -1 }
end
local at, interval = now(), tonumber(rules[2])
--- @include hold
if plain and not interval then
  --- @include swift
  local reply = swift(count, at)
  return rules[5] and lifetime(reply) or reply
end
local levels, dead, lettered = { unpack(KEYS, 15) }, KEYS[12], rules[4]
local order = levels
if ARGV[3] == 'highest' then
  order = {}
  for i, list in ipairs(levels) do
    order[11 - i] = list
  end
end
--- @include ready
--- @include promote
--- @include drop
--- @include pop
local tokens, slack = KEYS[13], interval and interval * (tonumber(rules[3]) - 1)
--- @include rate
count = interval and math.min(count, allowed(at)) or count
promote(at)
local ids, bodies, more = pop(count, at)
local reply = { more and 1 or 0, -1 }
if #ids > 0 then
  hold(ids, bodies, ARGV[1], at, reply)
end
local later = interval and spent(#ids, at) or 0
if more and later > 0 then
  reply[1], reply[2] = 0, later
  redis.call('DEL', wake)
elseif more then
  redis.call('ZADD', wake, 0, 'w')
else
  redis.call('DEL', wake)
  local next_due = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
  if next_due[2] then
    reply[2] = math.max(later, next_due[2] - at)
  end
end
return rules[5] and lifetime(reply) or reply
