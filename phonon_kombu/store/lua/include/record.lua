--[[ record(reply, id, state, item): append what is known of a job to `reply`: twelve values. The
item itself is not among them, only its size and its head: the first line, which of our messages is
the envelope, up to 16 KB of it.
Needs the locals `claimed`, `scheduled`, `published`, `cancelled`, `owners`, `reasons`,
`priorities`, `deadlines`.
COST eight commands, at most O(log n) ]]
local function record(reply, id, state, item)
  local function known(command, key)
    return redis.call(command, key, id) or ''
  end
  local head = string.sub(item, 1, 16384)
  local n = #reply
  reply[n + 1], reply[n + 2] = id, state
  reply[n + 3] = known('ZSCORE', published)
  reply[n + 4] = known('ZSCORE', claimed)
  reply[n + 5] = known('ZSCORE', scheduled)
  reply[n + 6] = known('ZSCORE', deadlines)
  reply[n + 7] = known('HGET', cancelled)
  -- (What stands there of a job that is not claimed is the mark of one who was taken for dead.)
  reply[n + 8] = state == 'claimed' and known('HGET', owners) or ''
  reply[n + 9] = known('HGET', reasons)
  reply[n + 10] = known('HGET', priorities)
  reply[n + 11] = #item
  reply[n + 12] = string.sub(head, 1, (string.find(head, '\n', 1, true) or 16385) - 1)
end
