-- How much waits. Writes nothing.
-- KEYS[1] list: records   KEYS[2] hash: see _backlog.lua
-- {OK, server time in ms, records, bytes, records given up, the beginning of the oldest record ('' if there is none)}

local BEGINNING = 1024
local raw = redis.call('HMGET', KEYS[2], 'bytes', 'given_up')
local oldest = string.sub(redis.call('LINDEX', KEYS[1], 0) or '', 1, BEGINNING)
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {'OK', now, redis.call('LLEN', KEYS[1]), tonumber(raw[1] or 0), tonumber(raw[2] or 0), oldest}
