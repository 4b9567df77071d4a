-- Be the one of several daemons that watches, go on being it, or give it up (docs/watch.md). It orders work and decides
-- nothing about rows: two that watch at once cost a load too many.
--
-- KEYS   watch guard
-- ARGV   holder ttl_ms
-- REPLY  held holder left_ms
--
-- holder   who asks, and in the reply who watches now ('' for nobody)
-- ttl_ms   for how long it is to be the caller's; 0 gives it up
-- held     1 if it is the caller's, for ttl_ms; left_ms is what is left of another's
local holder, ttl_ms = ARGV[1], tonumber(ARGV[2])
local watch_key, guard_key = KEYS[1], KEYS[2]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
local present = redis.pcall('GET', watch_key)
if type(present) ~= 'string' then present = '' end -- none, or a foreign type, which goes

if present ~= '' and present ~= holder then
  local left = redis.call('PTTL', watch_key)
  -- After a Redis clock that stepped back it would outlive what its holder set.
  if ttl_ms > 0 and (left == -1 or left > ttl_ms) then
    redis.call('PEXPIRE', watch_key, ttl_ms)
    left = ttl_ms
  end
  return { '0', present, text(left) }
end
if ttl_ms > 0 then
  redis.call('SET', watch_key, holder, 'PX', ttl_ms)
  return { '1', holder, text(ttl_ms) }
end
redis.call('DEL', watch_key)
return { '0', '', '0' }
