-- Is the caller's copy current, or which rows are, or who loads them? (PROTOCOL R2)
--
-- KEYS   entry lock events guard
-- ARGV   known floor_kind age_us resolved resolved_incarnation token rejected
--        ttl_ms stale_ms lock_ttl_ms refresh_ms max_payload inline
--        fleet reader held_us presence
-- REPLY  asked kind time incarnation floor note grant granted_when lock_left_ms last_event
--        copy digest format loaded_at load_us source signature fresh_ms life_ms payload
--
-- known           digest of the rows that the caller holds, '' for none
-- floor_kind      'any', 'age' (age_us says how old) or 'now' (a forced read): the oldest acceptable loaded_at
-- resolved        the floor that an earlier answer to this caller gave, with that answer's incarnation; '' for none
-- token           32 hex digits, the caller's own
-- rejected        digest:loaded_at of an entry that the caller found corrupt (R14), '' for none
-- inline          the most bytes of payload that the answer holds: Lua takes several times as long as an HMGET to give it
-- fleet           the fleet's key, '' for a caller that leaves no presence: who it is, for how long it has held what it
--                 knows, and what it tells of itself
-- asked           the caller's token: a connection that was interrupted may hold the answer to another question
-- kind            SAME | ROWS | FILL | WAIT
-- note            why an entry that is there does not count: type, malformed, incarnation, ahead, oversized, rejected; or ''
-- grant           FILL: the lock's grant time; granted_when the server time at which it was granted
-- lock_left_ms    WAIT: the lock's remaining life; last_event the id to listen from, '' where there is no stream to read
-- copy            'same' (the caller's known rows), 'rows' (in payload), or '' for none. With FILL and WAIT it is a
--                 fallback: rows that may be served if the load fails (R15, R16)
-- payload         '' with 'rows' where it is over inline: the caller fetches it, and takes it only with this answer's
--                 digest, loaded_at and incarnation (R1)
-- fresh_ms        until the TTL; life_ms until the end of stale_if_error too
local known, floor_kind, age_us, resolved, resolved_incarnation, token, rejected =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local ttl_ms, stale_ms, lock_ttl_ms, refresh_ms, max_payload, inline =
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local fleet, reader, held_us, presence = ARGV[14], ARGV[15], tonumber(ARGV[16]), ARGV[17]
local entry_key, lock_key, events_key, guard_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- A harmless write, first: a master that is cut off from its replicas refuses it, instead of serving an old entry.
redis.call('DEL', guard_key)

local time = redis_time()
local inc = incarnation()
if not inc then return redis.error_reply(NO_INCARNATION) end

-- After a Redis clock that stepped back, a key would outlive what its writer set: no key lives longer than it would
-- if it were set now. Returns the remaining life in ms.
local function bounded_ttl(key, most)
  local left = redis.call('PTTL', key)
  if left == -1 or left > most then
    redis.call('PEXPIRE', key, most)
    return most
  end
  return left
end

-- What was loaded, or is being loaded, later than this is of before a clock that stepped back by more than the TTL, or
-- forged: as *now* is past it, the next fill would take its time over, and sign it (docs/signing.md).
local latest = time + ttl_ms * 1000

-- The entry, if it counts at all.
local entry, note = nil, ''
local fields = redis.pcall('HMGET', entry_key, 'digest', 'format', 'loaded_at', 'load_us', 'source', 'signature', 'incarnation')
if fields.err then
  note = 'type'
elseif fields[1] or fields[3] or fields[7] then
  -- load_us too: tonumber() would read '-inf', which then went out as the remaining freshness.
  local loaded_at, load_us = time_from(fields[3], 8e15), time_from(fields[4], 8e15)
  if not (fields[1] and fields[2] and fields[5] and fields[6] and fields[7] and loaded_at and load_us) then
    note = 'malformed'
  elseif fields[7] ~= inc then
    note = 'incarnation'
  elseif loaded_at > latest then
    note = 'ahead'
  else
    local life = bounded_ttl(entry_key, ttl_ms + stale_ms)
    -- Fresh until the TTL: by what is left of the key's life, and by the time since it was stored, since its writer's
    -- stale_if_error may be another than this reader's.
    local stored = loaded_at + load_us
    local fresh = math.min(life - stale_ms, ttl_ms - math.floor((time - stored) / 1000))
    -- Past its TTL it lives for this reader's stale_if_error, however long another's lets the key live (R15).
    life = math.min(life, fresh + stale_ms)
    if fields[1] .. ':' .. fields[3] == rejected then
      note = 'rejected' -- it is no entry: its time, which nobody vouches for, counts for nothing either
    else
      entry = { digest = fields[1], loaded_at = loaded_at, life = life, fresh = fresh }
    end
  end
elseif redis.call('EXISTS', entry_key) == 1 then
  note = 'malformed'
end

-- The lock, if it counts: one of another incarnation is absent, or a replicated lock would block everyone (R2).
local lock = parse_lock(redis.pcall('GET', lock_key))
if lock and (lock.incarnation ~= inc or lock.grant > latest) then lock = nil end
local lock_left = 0
if lock then lock_left = bounded_ttl(lock_key, lock_ttl_ms) end

-- A clock that stepped back must not make an old entry, or an older fill, look new to a forced read (R2).
local now = time
if entry and entry.loaded_at >= now then now = entry.loaded_at + 1 end
if lock and lock.grant >= now then now = lock.grant + 1 end

-- A floor is resolved once per call, and anew under another incarnation, whose clock is another.
local floor = 0
if resolved ~= '' and resolved_incarnation == inc then
  floor = tonumber(resolved)
elseif floor_kind == 'now' then
  floor = now
elseif floor_kind == 'age' then
  floor = math.max(0, now - age_us)
end

-- Which of its rows the caller may have.
local usable = entry ~= nil and entry.life > 0 and entry.loaded_at >= floor
local same = usable and known ~= '' and entry.digest == known
local size = 0
if usable and not same then
  size = redis.call('HSTRLEN', entry_key, 'payload')
  if size == 0 then
    usable, note = false, 'malformed'
  elseif size > max_payload then
    usable, note = false, 'oversized'
  end
end
local fresh = usable and entry.fresh > 0

local function grant_lock()
  -- At least the caller's floor, so that the next forced reader can accept this fill (R2).
  local granted = text(math.max(now, floor))
  local granted_when = text(time)
  local value = token .. '|' .. granted .. '|' .. inc .. '|' .. granted_when
  redis.call('SET', lock_key, value, 'PX', lock_ttl_ms)
  return granted, granted_when
end

local kind, grant, granted_when = nil, '', ''
if lock and lock.token == token then
  -- This caller's own request came twice (a lost reply, a retry): with the original grant time it does not wait for
  -- itself, and its fill stays as old as it is.
  kind, grant, granted_when = 'FILL', text(lock.grant), lock.granted_when
elseif fresh then
  if refresh_ms > 0 and entry.fresh < refresh_ms and not lock and floor_kind ~= 'now' then
    kind = 'FILL'
    grant, granted_when = grant_lock()
  else
    kind = same and 'SAME' or 'ROWS'
  end
elseif lock then
  kind = 'WAIT'
else
  kind = 'FILL'
  grant, granted_when = grant_lock()
end

local last_event = ''
if kind == 'WAIT' then
  -- From this id on, never from '$': what happens between this answer and the wait is not missed (R11).
  local newest = redis.pcall('XREVRANGE', events_key, '+', '-', 'COUNT', 1)
  if not newest.err then last_event = newest[1] and newest[1][1] or '0-0' end
end

-- A forced read gets no fallback: it asked for rows that are loaded after its call (R15).
local offered = usable and (kind == 'SAME' or kind == 'ROWS' or floor_kind ~= 'now')
local copy, payload = '', ''
if offered then
  copy = same and 'same' or 'rows'
  if not same and size <= inline then payload = redis.call('HGET', entry_key, 'payload') end
end
leave_presence(fleet, reader, time, kind, offered and fields[1] or '', offered and fields[3] or '',
  copy == 'same' and time - held_us or time, presence)
return {
  token, kind, text(time), inc, text(floor), note, grant, granted_when, text(lock_left), last_event,
  copy, offered and fields[1] or '', offered and fields[2] or '', offered and fields[3] or '',
  offered and fields[4] or '', offered and fields[5] or '', offered and fields[6] or '',
  offered and text(entry.fresh) or '0', offered and text(entry.life) or '0', payload,
}
