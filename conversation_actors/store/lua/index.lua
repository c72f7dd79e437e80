-- Enter a conversation in one listing, as active now.
-- KEYS[1] zset: conversation id by time of last activity in ms
-- ARGV: conversation id, ttl in ms, permanent (1 or 0), score ('' for now)
-- {OK}

local key, conversation_id, ttl_ms, permanent, score = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if score == '' then
  score = string.format('%.0f', now)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', now - ttl_ms))
end
redis.call('ZADD', key, 'GT', score, conversation_id)
if not permanent and redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, ARGV[2]) end
return {'OK'}
