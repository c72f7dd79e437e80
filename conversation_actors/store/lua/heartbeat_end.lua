-- Nothing is to be taken over any more: the holder has stopped, or its claimant has settled it.
-- KEYS[4] string: made, so that a holder who does not know yet cannot bring the record back
-- ARGV: conversation id, holder, claimant ('' for the holder's own end), attempt, how long to remember it in ms
-- {OK}   {LOST} (not there, another holder's, or not this claimant's claim)

local id, holder, claimant, attempt, remember_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local record = find(id)
if not record or record.holder ~= holder then return {'LOST'} end
if claimant ~= '' and (record.claimant ~= claimant or record.attempt ~= attempt) then return {'LOST'} end
drop(id)
redis.call('SET', KEYS[4], 1, 'PX', remember_ms)
return {'OK'}
