-- Delete the entry and the fill lock together, then log it (PROTOCOL R3, R7).
--
-- KEYS   entry lock events invalidations guard
-- ARGV   who host reason events_cap events_ttl_ms invalidations_cap
-- REPLY  time existed digest fill_cancelled logged
--
-- existed         1 if there was an entry, and its digest ('' if it told none)
-- fill_cancelled  1 if a fill was running: without its lock it cannot publish (R3)
-- logged          1 if both streams took the event: on a server over maxmemory the log may fail, the deletion must not
--
-- The caller must then wait LEASE_MAX × 1.02 = 1.02 s from the receipt of this reply: only then is it in force.
-- It needs no other script, and no right but that to these keys.
local who, host, reason, events_cap, events_ttl_ms, invalidations_cap =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local entry_key, lock_key, events_key, invalidations_key, guard_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
local digest = redis.pcall('HGET', entry_key, 'digest')
if type(digest) ~= 'string' then digest = '' end
local existed = redis.call('DEL', entry_key)
local fill_cancelled = redis.call('DEL', lock_key)
local now = redis.call('TIME')
local time = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))

local function tell(key, cap, ttl_ms, ...)
  local added = redis.pcall('XADD', key, 'MAXLEN', '~', cap, '*', ...)
  if type(added) == 'table' and added.err and string.find(tostring(added.err), 'WRONGTYPE', 1, true) then
    redis.call('DEL', key)
    added = redis.pcall('XADD', key, 'MAXLEN', '~', cap, '*', ...)
  end
  if type(added) == 'table' and added.err then return 0 end
  if tonumber(ttl_ms) > 0 then redis.pcall('PEXPIRE', key, ttl_ms) end
  return 1
end

local told = tell(events_key, events_cap, events_ttl_ms, 'event', 'invalidated', 'time', time, 'digest', digest,
  'who', who, 'host', host, 'reason', reason)
local logged = tell(invalidations_key, invalidations_cap, '0', 'time', time, 'who', who, 'host', host,
  'reason', reason, 'digest', digest, 'existed', tostring(existed), 'fill_cancelled', tostring(fill_cancelled))
return { time, tostring(existed), digest, tostring(fill_cancelled), tostring(math.min(told, logged)) }
