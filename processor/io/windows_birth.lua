-- Begins a generation where the sentinel is gone or was born on another server: whatever the windows held may be lost.  Old
-- generations are never read again and expire.
--
-- ARGV[1]  a new generation
-- ARGV[2]  a generation to complete, with the newest event time stored, read after its birth (ARGV[3]); or ''
-- Returns  the generation in force; an error where windows may be lost unnoticed, as on a replica that took over and is set up otherwise
local policy = string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:(%S+)') or 'noeviction'
if policy ~= 'noeviction' then
  return redis.error_reply('EVICTS it may evict windows (maxmemory-policy ' .. policy
    .. '): run `CONFIG SET maxmemory-policy noeviction` there')
end
local generation, server = unpack(redis.call('HMGET', KEYS[1], 'generation', 'server'))
local here = identity()
if not generation or server ~= here then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'server', here)
  generation = ARGV[1]
end
if generation == ARGV[2] then redis.call('HSETNX', KEYS[1], 'newest', ARGV[3]) end
return generation
