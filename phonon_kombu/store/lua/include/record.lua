--[[ record(reply, id, state, item): append what is known of a job to `reply`: twelve values. The
item itself is not among them, only its size and its head: the first line, which of our messages is
the envelope. Where that is longer than 16 KB, a message as stock kombu writes it, in one line with
the body in front, goes without its body; what is longer still is cut there, unless `whole`.
Needs the locals `claimed`, `scheduled`, `published`, `cancelled`, `owners`, `reasons`,
`priorities`, `deadlines`, `whole`.
COST eight commands, at most O(log n), and the size of the item ]]
local function head_of(item)
  local most = 16384
  local line = (string.find(item, '\n', 1, true) or #item + 1) - 1
  if line > most and line == #item then
    local body = string.match(item, '^{"body": ?"()')
    -- Within a string a quotation mark stands behind a backslash, and never behind these.
    local rest = body and (string.find(item, '", "content-', body, true)
      or string.find(item, '","content-', body, true))
    if not rest then
      return string.sub(item, 1, most)
    end
    item = string.sub(item, 1, body - 1) .. string.sub(item, rest)
    line = #item
  end
  return string.sub(item, 1, whole and line or math.min(line, most))
end

local function record(reply, id, state, item)
  local function known(command, key)
    return redis.call(command, key, id) or ''
  end
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
  reply[n + 12] = head_of(item)
end
