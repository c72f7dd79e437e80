-- Let a claim hold for `delay` from now; then it is anybody's who sees it silent for as long.
-- ARGV: conversation id, holder, claimant, attempt, delay in ms, ttl in ms, incarnation to begin where there is none
-- {OK}   {LOST} (not there, or not this claimant's claim)

local id, holder, claimant, attempt = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local record = find(id)
if not record or record.holder ~= holder or record.claimant ~= claimant or record.attempt ~= attempt then
  return {'LOST'}
end
put(id, record, tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7])
return {'OK'}
