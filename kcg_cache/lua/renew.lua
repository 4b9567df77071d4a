-- Keep the fill lock, if the caller still holds it; never create it (PROTOCOL R3).
--
-- KEYS   lock guard
-- ARGV   expected lock_ttl_ms
-- REPLY  status
--
-- expected  the lock's value: token, grant time, incarnation
-- status    RENEWED | LOST
local expected, lock_ttl_ms = ARGV[1], ARGV[2]
local lock_key, guard_key = KEYS[1], KEYS[2]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
if not holds(lock_key, expected) then return { 'LOST' } end
redis.call('PEXPIRE', lock_key, lock_ttl_ms)
return { 'RENEWED' }
