-- May this user run these commands? For `kcg-cache doctor`: it runs none of them, and writes nothing.
--
-- KEYS   entry
-- ARGV   commands
-- REPLY  answers
--
-- commands  a JSON list of commands, each a list of its words, its keys too: they are no KEYS, for a user without
--           rights to one of those is refused the whole script
-- answers   '1' it may, '0' it may not, '?' the server cannot tell, for each in order; a list
local commands = ARGV[1]
local entry_key = KEYS[1] -- where in a cluster it runs

local answers = {}
for number, command in ipairs(cjson.decode(commands)) do
  local known, may = pcall(redis.acl_check_cmd, unpack(command))
  answers[number] = not known and '?' or may and '1' or '0'
end
return { answers }
