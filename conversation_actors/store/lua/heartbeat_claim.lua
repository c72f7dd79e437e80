-- Claim one record: of a holder known to be gone (now, unless somebody else's claim holds), or of anybody who still
-- stands at the beat at which the claimant has seen it silent for long enough.
-- A repeat of a claim that holds makes it hold longer, and is no further attempt.
-- ARGV: conversation id, claimant, holder ('' for anybody), incarnation and beat that were seen silent ('' for none),
--       hold in ms, ttl in ms, incarnation to begin where there is none
-- {OK, incarnation, count, id, record, beat}   {LOST}

local id, claimant, holder, hold, ttl_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local record = find(id)
if not record then return {'LOST'} end
local is_silent = ARGV[4] ~= '' and stands(id, ARGV[4], ARGV[5])
if holder == '' and not is_silent then return {'LOST'} end
if holder ~= '' and record.holder ~= holder then return {'LOST'} end
if record.claimant and not is_silent then
  if record.claimant ~= claimant then return {'LOST'} end
  record.attempt = record.attempt - 1
end
local claimed = claim(id, record, claimant, hold, ttl_ms, ARGV[8])
local reply = told()
add(reply, claimed)
return reply
