-- Give the fill lock back without rows, if the caller still holds it, and wake the waiters (PROTOCOL R3, R11, R13).
--
-- KEYS   lock events guard
-- ARGV   expected reason by events_cap events_ttl_ms
-- REPLY  status
--
-- expected  the lock's value: token, grant time, incarnation
-- reason    why: failed, tainted, oversized, …; by: who
-- status    RELEASED | LOST
local expected, reason, by, events_cap, events_ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lock_key, events_key, guard_key = KEYS[1], KEYS[2], KEYS[3]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
if not holds(lock_key, expected) then return { 'LOST' } end
redis.call('DEL', lock_key)
tell(events_key, events_cap, events_ttl_ms, 'event', 'released', 'time', text(redis_time()), 'reason', reason, 'by', by)
return { 'RELEASED' }
