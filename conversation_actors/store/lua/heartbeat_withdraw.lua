-- A holder is on its way to a record no longer.
-- KEYS[4] set: what this holder has begun, or is on its way to
-- ARGV: conversation id
-- {OK}

redis.call('SREM', KEYS[4], ARGV[1])
return {'OK'}
