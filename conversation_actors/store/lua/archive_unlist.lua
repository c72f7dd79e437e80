-- Let in no push under a mark up to this one, if nothing waits: then it may be taken out of the listing.
-- KEYS[1] list: records   KEYS[2] hash: see _backlog.lua
-- ARGV: mark, ms for which this is remembered: longer than a push may be under way
-- {OK}   {LOST} (something waits, or was pushed under a later mark)

local BACKLOG, ARCHIVE = KEYS[1], KEYS[2]
local marks = redis.call('HMGET', ARCHIVE, 'listed', 'unlisted')
local mark = tonumber(ARGV[1])
if redis.call('EXISTS', BACKLOG) == 1 or tonumber(marks[1] or 0) > mark then return {'LOST'} end
redis.call('DEL', ARCHIVE)
redis.call('HSET', ARCHIVE, 'unlisted', string.format('%.0f', math.max(tonumber(marks[2] or 0), mark)))
redis.call('PEXPIRE', ARCHIVE, ARGV[2])
return {'OK'}
