-- A holder is alive. A record that was lost is written anew, but not one that was ended on purpose.
-- KEYS[3] string: there while an ended conversation is remembered as such
-- ARGV: conversation id, holder, group ('' to leave it), details ('' to leave them), valid_for in ms, ttl in ms
-- {OK}   {LOST} (claimed, ended, or another holder has started)

local id, holder, group, details, valid_for, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local record = find(id)
if not record and redis.call('EXISTS', KEYS[3]) == 1 then return {'LOST'} end
record = record or {holder = holder, group = '', details = '{}', attempt = 0}
if record.holder ~= holder or record.claimant then return {'LOST'} end
if group ~= '' then record.group = group end
if details ~= '' then record.details = details end
put(id, record, valid_for, ttl_ms)
return {'OK'}
