--[[ store(key, value, ttl_seconds, head, success, expected): set a task's result and tell who
waits for it, unless the task has succeeded before: the first success stands.
`head` is how every result of this serializer begins ('' where that is not known), `success` how
one of a success does. A stored result that begins otherwise cannot be judged here.
Returns 1 stored, 0 kept, or the stored result for the caller to judge, who comes again with its
SHA1 as `expected`.
COST three commands ]]
local function store(key, value, ttl, head, success, expected)
  local old = redis.call('GETRANGE', key, 0, 63)
  if old ~= '' then
    if head ~= '' and string.sub(old, 1, #head) == head then
      if string.sub(old, 1, #success) == success then
        return 0
      end
    else
      old = redis.call('GET', key)
      if redis.sha1hex(old) ~= expected then
        return old
      end
    end
  end
  if ttl ~= '' and ttl ~= '0' then
    redis.call('SET', key, value, 'EX', ttl)
  else
    redis.call('SET', key, value)
  end
  redis.call('PUBLISH', key, value)
  return 1
end
