-- Runs every command that the scripts of windows call, on a key of its own that it leaves nothing of.
--
-- KEYS[1]  a key among those of windows
-- Returns  {sentence of a command that was refused, ...}
local key, refused = KEYS[1], {}
local function try(name, ...)
  local said = redis.pcall(name, ...)
  if type(said) == 'table' and said.err then refused[#refused + 1] = name .. ': ' .. said.err end
end
try('INFO', 'server')
try('HSET', key, 'generation', '0')
try('HSETNX', key, 'newest', '0')
try('HMGET', key, 'generation', 'server')
try('DEL', key)
try('ZADD', key, 1, 'a', 2, 'b', 3, 'c', 4, 'd')
try('PEXPIREAT', key, '9999999999999')
try('PEXPIRETIME', key)
try('ZCARD', key)
try('ZSCORE', key, 'a')
try('ZCOUNT', key, 1, 2)
try('ZRANGE', key, 0, 0, 'WITHSCORES')
try('ZRANGEBYSCORE', key, 1, 2, 'LIMIT', 0, 2)
try('ZREM', key, 'd')
try('ZREMRANGEBYRANK', key, 0, 0)
try('ZREMRANGEBYSCORE', key, '-inf', 2)
redis.pcall('DEL', key)
return refused
