-- Adds what Postgres remembers to windows being built and completes them.  Rows were read after the marker stood, and everything
-- committed since was added by `write`: if the same marker still stands, nothing is missing above the floor.
--
-- ARGV[1]  msgpack: {key prefix, {suffix, token, floor, expire at, times, {time, burst, ...} of exceeding events}, ...}
-- ARGV[2]  ids, 16 bytes each: for each window those of its members, then those of its exceeding events
-- Returns  msgpack: how many of them it completed
local generation = in_force()
if not generation then return cmsgpack.pack(0) end
local request = cmsgpack.unpack(ARGV[1])
local prefix = request[1] .. generation .. ':'
local completed, at = 0, 0  -- at: how many ids are used up

local function next_id()
  at = at + 1
  return string.sub(ARGV[2], 16 * at - 15, 16 * at)
end

local function add(key, pairs_)
  for from = 1, #pairs_, 1000 do
    redis.call('ZADD', key, 'NX', unpack(pairs_, from, math.min(from + 999, #pairs_)))
  end
end

for n = 2, #request do
  local key, token, floor, expire = prefix .. request[n][1], request[n][2], request[n][3], request[n][4]
  local members, exceeding = {}, {}
  for i, t in ipairs(request[n][5]) do
    members[2 * i - 1], members[2 * i] = t, next_id()
  end
  for i = 1, #request[n][6], 2 do
    exceeding[i], exceeding[i + 1] = request[n][6][i], next_id() .. request[n][6][i + 1]
  end
  if redis.call('ZRANGE', key, 0, 0)[1] == 'B' .. token then
    -- A write meanwhile may have brought something later.  Asked first: a key that is emptied forgets when it expires.
    expire = math.max(expire, redis.call('PEXPIRETIME', key))
    -- Completed last: in a slot that is moving each of these commands may find its key gone, and end the script.
    add(key .. ':x', exceeding)
    redis.call('ZREMRANGEBYSCORE', key .. ':x', '-inf', floor)
    redis.call('PEXPIREAT', key .. ':x', expire)
    add(key, members)
    redis.call('PEXPIREAT', key, expire)
    redis.call('ZREMRANGEBYSCORE', key, '(-inf', floor)
    redis.call('ZADD', key, floor, 'C')
    redis.call('ZREM', key, 'B' .. token)
    completed = completed + 1
  end
end
return cmsgpack.pack(completed)
