-- Adds facts of committed rows to windows that exist; creates none, so that a loss in between leaves no window that looks whole.
-- Adding a fact again, late or by a suspended worker is harmless.
--
-- ARGV[1]  msgpack: {key prefix, {{stem, w, n, keep first, lateness, keep, least expire at}, ...}, which of these, lead, time or times,
--          ...}; where a filter is keep-first its windows have a word more: for each event the burst of one that exceeded, else ''.
--          n is false where a reader has seen that these events leave no more than n members (lanes that add to a window at once may leave
--          more for a while), keep where the window was begun for them: it expires late enough
-- ARGV[2]  the ids of all these events in turn, 16 bytes each
-- Returns  msgpack: the numbers of the windows that are missing, from 1; false where the sentinel has to be born
--
-- Bounded: of each window-aligned slice the first and last n + 1 members stay, of exceeding events the first and last; nothing
-- older than newest - w - lateness does.  A window spans two slices at most, so min(count, n + 1) stays exact above the floor.
local generation = in_force()
if not generation then return cmsgpack.pack(false) end
local request = cmsgpack.unpack(ARGV[1])
local prefix, kinds = request[1] .. generation .. ':', request[2]
local missing, at = {}, 0  -- at: how many ids are used up

local function add(key, pairs_)
  for from = 1, #pairs_, 1000 do
    redis.call('ZADD', key, 'NX', unpack(pairs_, from, math.min(from + 999, #pairs_)))
  end
end

-- Keeps the first and last `keep` elements of each slice that `pairs_` reached.
local function thin(key, pairs_, w, keep)
  local seen = {}
  for i = 1, #pairs_, 2 do
    local low = pairs_[i] - pairs_[i] % w
    if not seen[low] then
      seen[low] = true
      local count = redis.call('ZCOUNT', key, low, low + w - 1)
      if count > 2 * keep then
        local before = redis.call('ZCOUNT', key, '-inf', low - 1)
        redis.call('ZREMRANGEBYRANK', key, before + keep, before + count - keep - 1)
      end
    end
  end
end

local n, window = 3, 0
while n <= #request do
  local stem, w, threshold, keep, lateness, keep_ms, least = unpack(kinds[request[n]])
  local key, times, bursts = prefix .. stem .. request[n + 1], request[n + 2], keep and request[n + 3]
  n, window = n + (keep and 4 or 3), window + 1
  if type(times) ~= 'table' then times = {times} end
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if not head[1] then
    missing[#missing + 1] = window
  else
    local members, exceeding, lowest, highest = {}, {}, times[1], times[1]
    for i = 1, #times do
      local t, id = times[i], string.sub(ARGV[2], 16 * (at + i) - 15, 16 * (at + i))
      members[2 * i - 1], members[2 * i] = t, id
      if t < lowest then lowest = t elseif t > highest then highest = t end
      if bursts and bursts[i] ~= '' then
        exceeding[#exceeding + 1], exceeding[#exceeding + 2] = t, id .. bursts[i]
      end
    end
    add(key, members)
    local expire = keep_ms and math.max(least, highest + keep_ms) or 0
    -- The marker of a complete window is its first element: what came in below it is held elsewhere.
    if head[1] == 'C' then
      local floor = tonumber(head[2])
      local crowded = threshold and redis.call('ZCARD', key) > 2 * (threshold + 1) + 1
      local raised = floor
      if crowded then
        raised = math.max(floor, tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) - w - lateness)
      end
      if raised > floor or lowest <= floor then
        -- Asked first: a key that is emptied forgets when it expires.
        expire = math.max(expire, redis.call('PEXPIRETIME', key))
        redis.call('ZREMRANGEBYSCORE', key, '-inf', raised)
        redis.call('ZADD', key, raised, 'C')
        redis.call('ZREMRANGEBYSCORE', key .. ':x', '-inf', raised)
        redis.call('PEXPIREAT', key, expire)
      end
      if crowded then thin(key, members, w, threshold + 1) end
    end
    if keep_ms then redis.call('PEXPIREAT', key, expire, 'GT') end
    if bursts then
      if #exceeding > 0 then
        add(key .. ':x', exceeding)
        thin(key .. ':x', exceeding, w, 1)
      end
      -- Neither outlives the other.
      redis.call('PEXPIREAT', key .. ':x', math.max(expire, redis.call('PEXPIRETIME', key)))
    end
  end
  at = at + #times
end
return cmsgpack.pack(missing)
