-- Enter a conversation in one listing, as active now; drop a few of those whose own time in it is up.
-- An entry leaves by its own expiry: what one program enters for a short time shortens nobody else's. A server clock
-- that steps ahead makes entries leave early; the upkeep of a conversation in use enters it again.
-- KEYS[1] zset: conversation id by time of last activity in ms   KEYS[2] zset: conversation id by expiry in ms
-- ARGV: conversation id, ttl in ms, permanent (1 or 0), score ('' for now)
-- {OK}

local AT_ONCE = 100 -- dropped at a time, so that no entry costs much: more leave than come
local activity, expiries = KEYS[1], KEYS[2]
local conversation_id, ttl_ms, permanent, score = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if score == '' then score = string.format('%.0f', now) end

redis.call('ZADD', activity, 'GT', score, conversation_id)
redis.call('ZADD', expiries, string.format('%.0f', now + ttl_ms), conversation_id)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', expiries, '-inf', string.format('%.0f', now), 'LIMIT', 0, AT_ONCE)) do
  redis.call('ZREM', activity, id)
  redis.call('ZREM', expiries, id)
end
for _, key in ipairs(KEYS) do
  if not permanent and redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, ARGV[2]) end
end
return {'OK'}
