-- Who is expected in one place, by the server's clock.
-- KEYS[1] hash: token → when it is over, in ms, a blank, and what is told
-- {OK, token, what is told, …}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local here = redis.call('HGETALL', KEYS[1])
local reply = {'OK'}
for index = 1, #here, 2 do
  local over, told = string.match(here[index + 1], '^(%d+) (.*)$')
  if over and tonumber(over) > now then
    reply[#reply + 1] = here[index]
    reply[#reply + 1] = told
  end
end
return reply
