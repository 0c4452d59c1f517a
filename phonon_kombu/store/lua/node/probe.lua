--[[ node/probe: which of these commands does the ACL forbid this user within scripts?
A script that is refused half way leaves its work half done: better ask before the first one. Each
command is tried on a key of our own that holds a string, in the shortest form that has enough
arguments; that it makes no sense there is said after the ACL was asked. The key ends by itself.
KEYS    1 scratch STRING
ARGV    1+ commands
RETURNS those that are forbidden   ERRORS none   COST O(commands), bounded by the caller ]]
local scratch = KEYS[1]
local function forbidden(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then
    return false, false
  end
  local why = tostring(reply.err)
  local few = string.find(string.lower(why), 'wrong number of arg', 1, true)
  return few, string.find(why, "run the '", 1, true) or string.find(why, "can't run this", 1, true)
end
local found = {}
for _, command in ipairs(ARGV) do
  local given = { command }
  for _ = 1, 5 do
    redis.pcall('SET', scratch, '0', 'PX', 1000)
    local few, refused = forbidden(unpack(given))
    if refused then
      found[#found + 1] = command
    end
    if not few then
      break
    end
    given[#given + 1] = scratch
  end
end
redis.pcall('DEL', scratch)
return found
