-- Claim one record: of a holder known to be gone (now, unless somebody else's claim holds), or one that has expired.
-- A repeat of a claim that holds makes it hold longer, and is no further attempt.
-- ARGV: conversation id, claimant, holder ('' for an expired record of anybody), hold in ms, ttl in ms
-- {OK, id, record, ms since its deadline}   {LOST}

local id, claimant, holder, hold, ttl_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local record, deadline = find(id)
if not record then return {'LOST'} end
local is_expired, reply = deadline <= NOW, {'OK'}
if holder == '' and not is_expired then return {'LOST'} end
if holder ~= '' and record.holder ~= holder then return {'LOST'} end
if record.claimant and not is_expired then
  if record.claimant ~= claimant then return {'LOST'} end
  record.attempt = record.attempt - 1
end
claim(reply, id, record, deadline, claimant, hold, ttl_ms)
return reply
