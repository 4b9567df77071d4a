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

local NO_INCARNATION = 'KCGINCARNATION this server does not tell run_id and master_replid: allow this user the INFO command (a fakeredis client: pass it through kcg_cache.testing)'

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
