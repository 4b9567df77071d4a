-- Put before every script that decides by incarnation. It defines functions and does nothing.

-- Redis server time in microseconds. Doubles are exact to 2^53, which these reach in the year 2255.
local function redis_time()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Numbers travel as whole decimal text: tostring() would write 1.7e+15.
local function text(number)
  return string.format('%.0f', number)
end

-- A time that someone else wrote: nil unless it is a whole number that a double holds exactly, with room for what is
-- added to it. (An entry's time has to be below 8e15, so that a lock granted after it is still a lock.)
local function time_from(value, limit)
  if value and string.match(value, '^%d+$') and #value <= 16 then
    local number = tonumber(value)
    if number < limit then return number end
  end
  return nil
end

-- run_id and master_replid of this very server. A restart changes the first, a failover the second; each alone can
-- come back (PROTOCOL, Words). A server that will not tell is an outage, never a constant in their place (R10).
-- More than a quarter of what a read costs the server is this INFO: it is asked once, for both, and searched for plain
-- text, which is found sooner than a pattern.
local function incarnation()
  local info = redis.pcall('INFO', 'server', 'replication')
  if type(info) == 'string' then
    local _, run_at = string.find(info, '\nrun_id:', 1, true)
    local _, replid_at = string.find(info, '\nmaster_replid:', 1, true)
    local run_id = run_at and string.match(info, '^%w+', run_at + 1)
    local replid = replid_at and string.match(info, '^%w+', replid_at + 1)
    if run_id and replid then return run_id .. '/' .. replid end
  end
  return nil
end

local NO_INCARNATION = 'KCGINCARNATION this server does not tell run_id and master_replid: this user needs the INFO command, of Redis 7.0 or later or of Valkey (a fakeredis client: pass it through kcg_cache.testing)'

-- The holder of a fill lock: token, grant time, incarnation, and the time at which the granting script ran; nil for a
-- value that is no lock of ours. The fourth part keeps two grants apart whose grant time is the same floor: without it a
-- late duplicate of a request, after a clock that stepped back, would make an old fill's lock anew (R3).
local function parse_lock(value)
  -- Ours have some 150 characters. Matching somebody's ten million would hold the server up at every question.
  if type(value) ~= 'string' or #value > 512 then return nil end
  local token, grant, inc, granted_when = string.match(value, '^(%w+)|(%d+)|([%w/]+)|(%d+)$')
  grant = time_from(grant, 9e15)
  if not grant then return nil end
  return { token = token, grant = grant, incarnation = inc, granted_when = granted_when }
end

-- Whether the lock is exactly `expected`, and of this incarnation (R3). Compared as strings.
local function holds(lock_key, expected)
  local value = redis.pcall('GET', lock_key)
  local lock = parse_lock(expected)
  return value == expected and lock ~= nil and lock.incarnation == incarnation()
end

-- One line for the waiters. The stream is no evidence: when it cannot be written (memory, a foreign type), what the
-- script decided stands. Returns whether it was written.
local function tell(events_key, cap, ttl_ms, ...)
  local added = redis.pcall('XADD', events_key, 'MAXLEN', '~', cap, '*', ...)
  if type(added) == 'table' and added.err and string.find(tostring(added.err), 'WRONGTYPE', 1, true) then
    redis.call('DEL', events_key)
    added = redis.pcall('XADD', events_key, 'MAXLEN', '~', cap, '*', ...)
  end
  if type(added) == 'table' and added.err then return false end
  if tonumber(ttl_ms) > 0 then redis.pcall('PEXPIRE', events_key, ttl_ms) end
  return true
end

-- How long the fleet's hash outlives its last reader, after which time a reader is forgotten, how many readers it holds
-- at most, up to how many nobody is looked for, and how many are looked at for each new one.
local FLEET_TTL_MS, FLEET_FORGET_US, FLEET_MAX, FLEET_FEW, FLEET_LOOK = 3600000, 900000000, 4096, 64, 16

-- Note who asked and what it was answered, for people (PROTOCOL, Presence). No decision depends on it: whatever fails
-- here, by memory, rights or a foreign type, fails alone. `fleet_key` is '' for a caller that has nothing to tell; it is
-- no KEY of the scripts, for a user without rights to one of those is refused the whole script.
local function leave_presence(fleet_key, reader, time, kind, digest, loaded_at, since, presence)
  if fleet_key == '' then return end
  -- A digest that somebody else wrote may be megabytes.
  local record = text(time) .. '|' .. kind .. '|' .. string.sub(digest, 1, 64) .. '|' .. loaded_at .. '|'
    .. text(since) .. '|' .. presence
  local added = redis.pcall('HSET', fleet_key, reader, record)
  if type(added) == 'table' and string.find(tostring(added.err), 'WRONGTYPE', 1, true) then
    redis.pcall('DEL', fleet_key)
    added = redis.pcall('HSET', fleet_key, reader, record)
  end
  if type(added) == 'table' then return end
  -- Of those who are there already about every eighth prolongs it: each would cost the server, and its replicas, as much
  -- as the record itself.
  if added == 1 or time % 8 == 0 then redis.pcall('PEXPIRE', fleet_key, FLEET_TTL_MS) end
  if added == 0 then return end
  -- A new one. Each looks at a few others by chance and drops those that are forgotten: a restart of a thousand
  -- processes costs no scan of them all, and what is forgotten goes sooner than new ones come.
  local size = redis.pcall('HLEN', fleet_key)
  if type(size) == 'number' and size <= FLEET_FEW then return end
  local some = redis.pcall('HRANDFIELD', fleet_key, FLEET_LOOK, 'WITHVALUES')
  local bounded = type(size) == 'number' and not some.err
  local oldest, oldest_seen = nil, nil
  for i = 1, bounded and #some or 0, 2 do
    local seen = tonumber(string.match(some[i + 1], '^%d+') or '0')
    if math.abs(time - seen) > FLEET_FORGET_US then -- also what a clock that stepped back has left
      bounded = bounded and type(redis.pcall('HDEL', fleet_key, some[i])) == 'number'
      size = size - 1
    elseif not oldest_seen or seen < oldest_seen then
      oldest, oldest_seen = some[i], seen
    end
  end
  if bounded and size > FLEET_MAX and oldest then
    bounded = type(redis.pcall('HDEL', fleet_key, oldest)) == 'number'
  end
  -- A user who may add and not take away: better none than without a bound.
  if not bounded then redis.pcall('DEL', fleet_key) end
end
