-- Which names begin with a text, of a part of all records: go on with the cursor until it is 0.
-- ARGV: cursor, how many records to look at, how a name begins
-- {OK, cursor, name, …}

local page = redis.call('HSCAN', HOLDERS, ARGV[1], 'COUNT', ARGV[2])
local reply = {'OK', page[1]}
for index = 1, #page[2], 2 do
  local name = page[2][index]
  if string.sub(name, 1, #ARGV[3]) == ARGV[3] then reply[#reply + 1] = name end
end
return reply
