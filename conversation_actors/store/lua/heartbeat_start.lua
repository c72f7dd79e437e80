-- A holder begins, whatever was there.
-- KEYS[4] string: there while an ended conversation is remembered as such   KEYS[5] set: what this holder has begun
-- ARGV: conversation id, holder, group, details, valid_for in ms, ttl in ms, incarnation to begin where there is none,
--       how long to remember what a holder has begun, in ms
-- {OK}

local id, holder, group, details, valid_for, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
put(id, {holder = holder, group = group, details = details, attempt = 0}, valid_for, ttl_ms, ARGV[7])
redis.call('DEL', KEYS[4])
remember(KEYS[5], id, tonumber(ARGV[8]))
return {'OK'}
