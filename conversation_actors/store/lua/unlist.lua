-- Take an entry out of a listing, unless it became active after it was read.
-- KEYS[1] zset
-- ARGV: conversation id, score that was read
-- {OK}

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) <= tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'OK'}
