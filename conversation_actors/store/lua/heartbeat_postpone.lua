-- Let a claim expire after `delay`, for anybody to claim.
-- ARGV: conversation id, holder, claimant, attempt, delay in ms, ttl in ms
-- {OK}   {LOST} (not there, or not this claimant's claim)

local id, holder, claimant, attempt = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local record = find(id)
if not record or record.holder ~= holder or record.claimant ~= claimant or record.attempt ~= attempt then
  return {'LOST'}
end
put(id, record, tonumber(ARGV[5]), tonumber(ARGV[6]))
return {'OK'}
