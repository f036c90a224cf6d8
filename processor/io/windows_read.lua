-- What windows say about events: read-only but for the creation of windows that are known to be empty.
--
-- A window is a sorted set: members are 16-byte event ids, scores event times (ms).  Its first element is a marker whose score is
-- the floor: every member above it is held.  'C' marks a complete window; 'B' and a token one that is being built.
-- Only times in integers: (t - w, t] is [t - w + 1, t].
--
-- ARGV[1]  msgpack: {key prefix, {suffix, w, n, keep first, trust, expire at, times}, ...}
-- ARGV[2]  the ids of all these events in turn, 16 bytes each (msgpack here knows no binary strings)
-- Returns  msgpack: {answer, ...}, or false where the sentinel has to be (re)born.  An answer is
--          0      no event of this call can exceed here
--          false  the window has to be built
--          {v..}  per event: 2 * min(members in its window, n + 1) + (it is one of them); below the floor -1, or -2 for a member;
--                 for keep-first filters each v is followed by a burst id, or ''
local generation, newest = in_force()
if not generation then return cmsgpack.pack(false) end
local request = cmsgpack.unpack(ARGV[1])
local prefix = request[1] .. generation .. ':'
local out, at = {}, 0  -- at: how many ids are used up

for n = 2, #request do
  local key, w, threshold, keep, trust, expire, times =
    prefix .. request[n][1], request[n][2], request[n][3], request[n][4], request[n][5], request[n][6], request[n][7]
  local lowest, highest = times[1], times[1]
  for i = 2, #times do
    if times[i] < lowest then lowest = times[i] elseif times[i] > highest then highest = times[i] end
  end
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  local floor = nil
  if head[1] == 'C' then
    floor = tonumber(head[2])
  elseif not head[1] then
    if newest > trust then trust = newest end
    if highest - w > trust then
      redis.call('ZADD', key, trust, 'C')
      redis.call('PEXPIREAT', key, expire)
      floor = trust
    end
  end
  if not floor then
    out[n - 1] = false
  elseif lowest - w >= floor and redis.call('ZCARD', key) - 1 + #times <= threshold then
    out[n - 1] = 0
  else
    local answer = {}
    for i = 1, #times do
      local t, id = times[i], string.sub(ARGV[2], 16 * (at + i) - 15, 16 * (at + i))
      local member = redis.call('ZSCORE', key, id) and 1 or 0
      local burst = ''
      if t - w < floor then
        answer[#answer + 1] = -1 - member
      else
        local count = redis.call('ZCOUNT', key, t - w + 1, t)
        if count > threshold then count = threshold + 1 end
        answer[#answer + 1] = 2 * count + member
        if keep then
          for _, other in ipairs(redis.call('ZRANGEBYSCORE', key .. ':x', t - w + 1, t + w - 1, 'LIMIT', 0, 2)) do
            if string.sub(other, 1, 16) ~= id then burst = string.sub(other, 17) end
          end
        end
      end
      if keep then answer[#answer + 1] = burst end
    end
    out[n - 1] = answer
  end
  at = at + #times
end
return cmsgpack.pack(out)
