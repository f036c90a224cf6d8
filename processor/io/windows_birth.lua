-- Begins a generation where the sentinel is gone or the server is another than the one it was born on: whatever the windows held
-- may be lost.  Old generations are never read again and expire.
--
-- KEYS[1]  the sentinel of the shard
-- ARGV[1]  a new generation
-- ARGV[2]  the identity of the server
-- ARGV[3]  a generation to complete, with the newest event time stored, read after its birth (ARGV[4]); or ''
-- Returns  the generation in force
local generation, server = unpack(redis.call('HMGET', KEYS[1], 'generation', 'server'))
if not generation or server ~= ARGV[2] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'server', ARGV[2])
  generation = ARGV[1]
end
if generation == ARGV[3] then redis.call('HSETNX', KEYS[1], 'newest', ARGV[4]) end
return generation
