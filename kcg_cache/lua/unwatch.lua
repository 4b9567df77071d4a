-- Give the watch back, if the caller still has it: another watcher takes it over at once, and not when it ends.
--
-- KEYS   watch guard
-- ARGV   holder
-- REPLY  status
--
-- status  RELEASED | LOST
local holder = ARGV[1]
local watch_key, guard_key = KEYS[1], KEYS[2]

redis.call('DEL', guard_key) -- refused by a master that is cut off from its replicas (R2)
if redis.pcall('GET', watch_key) ~= holder then return { 'LOST' } end
redis.call('DEL', watch_key)
return { 'RELEASED' }
