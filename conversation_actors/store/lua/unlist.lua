-- Take an entry out of a listing, unless it became active after it was read.
-- KEYS[1] zset: conversation id by time of last activity in ms   KEYS[2] zset: conversation id by expiry in ms
-- ARGV: conversation id, score that was read
-- {OK}

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) > tonumber(ARGV[2]) then return {'OK'} end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {'OK'}
