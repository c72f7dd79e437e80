-- Take a conversation out of the listing of those with a backlog, unless it entered anew since its mark was read.
-- KEYS[1] zset: conversation id by mark, in microseconds
-- ARGV: conversation id, mark
-- {OK}   {LOST} (it is there under another mark, or not at all)

local mark = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not mark or tonumber(mark) ~= tonumber(ARGV[2]) then return {'LOST'} end
redis.call('ZREM', KEYS[1], ARGV[1])
return {'OK'}
