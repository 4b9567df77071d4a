-- Claim the watch, or keep it: of the watchers of one dataset that run side by side, one reads the database. It is no
-- fence: two that watch at once cost a read each, and nothing else.
--
-- KEYS   watch guard
-- ARGV   holder ttl_ms
-- REPLY  status
--
-- holder  who asks: random, and nobody else's
-- status  CLAIMED (it was nobody's) | KEPT | OTHER (somebody else's)
local holder, ttl_ms = ARGV[1], ARGV[2]
local watch_key, guard_key = KEYS[1], KEYS[2]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
local value = redis.pcall('GET', watch_key) -- what is of a foreign type is nobody's
if type(value) == 'string' and value ~= holder then
  -- After a Redis clock that stepped back it would outlive its holder: nobody else would watch meanwhile (R2).
  local left = redis.call('PTTL', watch_key)
  if left == -1 or left > tonumber(ttl_ms) then redis.call('PEXPIRE', watch_key, ttl_ms) end
  return { 'OTHER' }
end
redis.call('SET', watch_key, holder, 'PX', ttl_ms)
return { value == holder and 'KEPT' or 'CLAIMED' }
