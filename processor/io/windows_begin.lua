-- Marks absent windows as being built, before the rows are read: from here on `write` adds to them, so that what is committed after
-- the rows were read is not missed.  A window that somebody else builds keeps his token: whoever finishes first completes it.
--
-- ARGV[1]  msgpack: {key prefix, token, {suffix, expire at}, ...}
-- Returns  msgpack: {token, ...}, false for a window that is complete by now; false alone where the sentinel has to be born
local generation = in_force()
if not generation then return cmsgpack.pack(false) end
local request = cmsgpack.unpack(ARGV[1])
local prefix, token = request[1] .. generation .. ':', request[2]
local tokens = {}
for n = 3, #request do
  local key = prefix .. request[n][1]
  local head = redis.call('ZRANGE', key, 0, 0)[1]
  if not head then
    redis.call('ZADD', key, '-inf', 'B' .. token)
    redis.call('PEXPIREAT', key, request[n][2])
    head = 'B' .. token
  end
  tokens[#tokens + 1] = head ~= 'C' and string.sub(head, 2)
end
return cmsgpack.pack(tokens)
