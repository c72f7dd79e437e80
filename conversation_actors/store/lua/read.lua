-- Read everything, at one moment. Writes nothing: a user that may only read, and a replica, run it as well.
-- KEYS[1] meta   KEYS[2] snapshot   KEYS[3] journal
-- ARGV: the fields of meta that are wanted
-- {OK, fields of meta (nil each where it has none), ms left to live (-2 where there is no meta), snapshot or nil, journal}

local meta = redis.call('HMGET', KEYS[1], unpack(ARGV))
return {'OK', meta, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2]), redis.call('LRANGE', KEYS[3], 0, -1)}
