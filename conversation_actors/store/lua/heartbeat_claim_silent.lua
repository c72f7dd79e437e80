-- Claim those of some records that still stand at the beats at which the claimant has seen them silent.
-- ARGV: claimant, hold in ms, ttl in ms, incarnation of the beats, incarnation to begin where there is none,
--       id, beat, …
-- {OK, incarnation, count, id, record, beat, …}

local claimant, hold, ttl_ms, seen, fresh = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local claimed = {}
for index = 6, #ARGV, 2 do
  local id = ARGV[index]
  local record = stands(id, seen, ARGV[index + 1]) and find(id)
  if record then claimed[#claimed + 1] = claim(id, record, claimant, hold, ttl_ms, fresh) end
end
local reply = told()
for _, one in ipairs(claimed) do add(reply, one) end
return reply
