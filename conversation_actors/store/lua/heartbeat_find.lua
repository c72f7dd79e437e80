-- Read one record, as it is.
-- ARGV: conversation id
-- {OK, incarnation, count, id, record, beat}   {LOST} (there is none)

local text, beat = redis.call('HGET', HOLDERS, ARGV[1]), redis.call('ZSCORE', BEATS, ARGV[1])
if not (text and beat) then return {'LOST'} end
local reply = told()
tell(reply, ARGV[1], text, beat)
return reply
