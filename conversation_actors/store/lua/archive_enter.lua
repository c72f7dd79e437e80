-- Enter a conversation in the listing of those with a backlog, or enter it anew: always with a later mark.
-- KEYS[1] zset: conversation id by mark, in microseconds
-- ARGV: conversation id, a mark that this one has to be later than
-- {OK, mark}

local time = redis.call('TIME')
local before = math.max(tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0), tonumber(ARGV[2]))
local mark = string.format('%.0f', math.max(before + 1, time[1] * 1000000 + time[2]))
-- A server out of memory refuses a script's first write if that may take memory: what deletes has to pass.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], mark, ARGV[1])
return {'OK', mark}
