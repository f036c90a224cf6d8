#!lua
-- How every script begins.  Without flags the line above makes a replica refuse it: what it holds may be about to be lost.
--
-- KEYS[1]  the sentinel of the shard: the generation in force, the server it was born on, the newest event time stored at its birth
--
-- A server that was restarted or promoted, or that got the shard from another one, is not the server of the sentinel: what was
-- acknowledged before may be missing here.
local function identity()
  return string.match(redis.call('INFO', 'server'), 'run_id:%x+')
    .. ' ' .. string.match(redis.call('INFO', 'replication'), 'master_replid:%x+')
end

-- The generation in force and its newest event time; nothing where the sentinel has to be (re)born.
local function in_force()
  local generation, server, newest = unpack(redis.call('HMGET', KEYS[1], 'generation', 'server', 'newest'))
  if generation and newest and server == identity() then return generation, tonumber(newest) end
end

