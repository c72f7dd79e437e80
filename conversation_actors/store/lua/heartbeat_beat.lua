-- A holder is alive. A record that was lost or damaged is written anew, but not one that was ended on purpose.
-- KEYS[4] string: there while an ended conversation is remembered as such   KEYS[5] set: what this holder has begun
-- ARGV: conversation id, holder, group ('' to leave it), details ('' to leave them), valid_for in ms, ttl in ms,
--       incarnation to begin where there is none, how long to remember what a holder has begun, in ms
-- {OK}   {LOST} (claimed, ended, or another holder has started)

local id, holder, group, details, valid_for, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local record = find(id)
if not record and redis.call('EXISTS', KEYS[4]) == 1 then return {'LOST'} end
record = record or {holder = holder, group = '', details = '{}', attempt = 0}
if record.holder ~= holder or record.claimant then return {'LOST'} end
if group ~= '' then record.group = group end
if details ~= '' then record.details = details end
put(id, record, valid_for, ttl_ms, ARGV[7])
if redis.call('PTTL', KEYS[5]) < tonumber(ARGV[8]) / 2 then remember(KEYS[5], id, tonumber(ARGV[8])) end
return {'OK'}
