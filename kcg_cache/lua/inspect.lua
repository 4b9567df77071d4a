-- What is there, for `kcg-cache status`: decides nothing and writes nothing.
--
-- KEYS   entry lock events invalidations
-- ARGV   count
-- REPLY  time incarnation entry entry_ttl_ms payload_bytes lock lock_ttl_ms events invalidations
--
-- entry           field, value, field, value, … without the payload; empty if there is none
-- *_ttl_ms        PTTL: -2 no such key, -1 no expiry
-- events          the newest `count` of the stream, newest first; invalidations likewise
local count = ARGV[1]
local entry_key, lock_key, events_key, invalidations_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local inc = incarnation()
if not inc then return redis.error_reply(NO_INCARNATION) end

local entry, bytes = {}, 0
for _, field in ipairs({ 'digest', 'format', 'loaded_at', 'load_us', 'incarnation', 'source', 'signature' }) do
  local value = redis.pcall('HGET', entry_key, field)
  if type(value) == 'string' then
    entry[#entry + 1] = field
    entry[#entry + 1] = value
  end
end
local size = redis.pcall('HSTRLEN', entry_key, 'payload')
if type(size) == 'number' then bytes = size end

local function newest(key)
  local found = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', count)
  if not found or found.err then return {} end
  return found
end

local lock = redis.pcall('GET', lock_key)
if type(lock) ~= 'string' then lock = '' end
return {
  text(redis_time()), inc, entry, redis.call('PTTL', entry_key), bytes, lock, redis.call('PTTL', lock_key),
  newest(events_key), newest(invalidations_key),
}
