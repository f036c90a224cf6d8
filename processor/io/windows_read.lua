-- What windows say about events: read-only but for the creation of windows that are known to be empty.
--
-- A window is a sorted set: members are 16-byte event ids, scores event times (ms).  Its first element is a marker whose score is
-- the floor: every member above it is held.  'C' marks a complete window; 'B' and a token one that is being built.
-- Only times in integers: (t - w, t] is [t - w + 1, t].
--
-- ARGV[1]  msgpack: {key prefix, {{stem, w, n, keep first, trust, keep, least expire at}, ...}, which of these, lead, time or times, ...}
-- ARGV[2]  the ids of all these events in turn, 16 bytes each (msgpack here knows no binary strings)
-- Returns  msgpack: {answer, ...}, or false where the sentinel has to be (re)born.  An answer is
--          0      no event of this call can exceed here; 1 the same, and this call has begun the window
--          false  the window has to be built
--          {v..}  per event: 2 * min(members in its window, n + 1) + (it is one of them); below the floor -1, or -2 for a member;
--                 for keep-first filters each v is followed by a burst id, or ''
local generation, newest = in_force()
if not generation then return cmsgpack.pack(false) end
local request = cmsgpack.unpack(ARGV[1])
local prefix, kinds = request[1] .. generation .. ':', request[2]
local out, at = {}, 0  -- at: how many ids are used up

for n = 3, #request, 3 do
  local stem, w, threshold, keep, trust, keep_ms, least = unpack(kinds[request[n]])
  local key, times = prefix .. stem .. request[n + 1], request[n + 2]
  local asked, lowest, highest = 1, times, times
  if type(times) == 'table' then
    asked, lowest, highest = #times, times[1], times[1]
    for i = 2, asked do
      if times[i] < lowest then lowest = times[i] elseif times[i] > highest then highest = times[i] end
    end
  end
  local held, floor, calm = redis.call('ZCARD', key), nil, 0
  if held > 0 then
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if head[1] == 'C' then floor, held = tonumber(head[2]), held - 1 end
  else
    if newest > trust then trust = newest end
    if highest - w > trust then
      redis.call('ZADD', key, trust, 'C')
      redis.call('PEXPIREAT', key, math.max(least, highest + keep_ms))
      -- Were it lost and begun again for an earlier event, it would have to live on for this one.
      floor, calm = trust, highest + keep_ms <= least and 1 or 0
    end
  end
  if not floor then
    out[#out + 1] = false
  elseif lowest - w >= floor and held + asked <= threshold then
    out[#out + 1] = calm
  else
    local answer = {}
    if type(times) ~= 'table' then times = {times} end
    for i = 1, asked do
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
    out[#out + 1] = answer
  end
  at = at + asked
end
return cmsgpack.pack(out)
