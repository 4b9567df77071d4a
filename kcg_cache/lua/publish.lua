-- Store what the holder of the fill lock loaded, if it still is the holder (PROTOCOL R3, R5).
--
-- KEYS   entry lock events guard
-- ARGV   expected digest format load_us source signature ttl_ms by events_cap events_ttl_ms payload
--        fleet reader held_us presence
-- REPLY  status time previous_source
--
-- expected         the lock's value: token, grant time, incarnation. The entry's loaded_at and incarnation are taken
--                  from it, never from after the database read (R5)
-- load_us          how long the load took, µs; by: who loaded
-- ttl_ms           ttl + stale_if_error
-- fleet            the fleet's key, '' for a caller that leaves no presence, as in read.lua
-- status           PUBLISHED | REJECTED
-- previous_source  which database the entry, or the last fill, before this one came from; '' if unknown
local expected, digest, format, load_us, source, signature, ttl_ms, by, events_cap, events_ttl_ms, payload =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local fleet, reader, held_us, presence = ARGV[12], ARGV[13], tonumber(ARGV[14]), ARGV[15]
local entry_key, lock_key, events_key, guard_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
local now = redis_time()
local time = text(now)
if not holds(lock_key, expected) then return { 'REJECTED', time, '' } end
local lock = parse_lock(expected)

local previous = redis.pcall('HGET', entry_key, 'source')
if type(previous) ~= 'string' then
  previous = ''
  local recent = redis.pcall('XREVRANGE', events_key, '+', '-', 'COUNT', 16)
  if not recent.err then
    for _, event in ipairs(recent) do
      local seen = {}
      for i = 1, #event[2], 2 do seen[event[2][i]] = event[2][i + 1] end
      if seen.event == 'filled' then
        previous = seen.source or ''
        break
      end
    end
  end
end

-- Deleted first: whatever type or field stood there is gone, also when the server has no memory for what follows.
redis.call('DEL', entry_key)
redis.call('HSET', entry_key, 'digest', digest, 'payload', payload, 'format', format, 'loaded_at', text(lock.grant),
  'load_us', load_us, 'incarnation', lock.incarnation, 'source', source, 'signature', signature)
redis.call('PEXPIRE', entry_key, ttl_ms)
redis.call('DEL', lock_key)
tell(events_key, events_cap, events_ttl_ms, 'event', 'filled', 'time', time, 'digest', digest, 'by', by,
  'load_us', load_us, 'bytes', tostring(#payload), 'source', source, 'loaded_at', text(lock.grant))
leave_presence(fleet, reader, now, 'PUBLISHED', digest, text(lock.grant), now - held_us, presence)
return { 'PUBLISHED', time, previous }
