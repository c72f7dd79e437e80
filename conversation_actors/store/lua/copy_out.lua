-- Read everything of a conversation and of its backlog, at one moment. Writes nothing.
-- KEYS[1] meta   KEYS[2] snapshot   KEYS[3] journal   KEYS[4] list: records   KEYS[5] hash: see _backlog.lua
-- {OK, ms left of meta (-2 where it is not there), meta (name, value, …), snapshot or nil, journal, ms left of the
-- hash, the hash (name, value, …), records}

return {'OK', redis.call('PTTL', KEYS[1]), redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]),
  redis.call('LRANGE', KEYS[3], 0, -1), redis.call('PTTL', KEYS[5]), redis.call('HGETALL', KEYS[5]),
  redis.call('LRANGE', KEYS[4], 0, -1)}
