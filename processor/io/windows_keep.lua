-- Forgets the generation in force unless it is the one that may go on.
--
-- ARGV[1]  that generation, or ''
-- Returns  1 where another one is forgotten
local generation = redis.call('HMGET', KEYS[1], 'generation')[1]
if not generation or generation == ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
