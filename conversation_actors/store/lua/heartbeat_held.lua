-- Which records a holder has begun, or is on its way to, those that are others' since too.
-- KEYS[4] set: their names; there for a while after the holder's last beat
-- {OK, name, …}

local reply = {'OK'}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[4])) do reply[#reply + 1] = name end
return reply
