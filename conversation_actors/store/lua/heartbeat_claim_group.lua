-- Claim the unclaimed records of one group, of a part of all records: go on with the cursor until it is 0.
-- ARGV: cursor, how many records to look at, group, claimant, hold in ms, ttl in ms,
--       incarnation to begin where there is none
-- {OK, incarnation, count, cursor, id, record, beat, …}

local group, claimant, hold, ttl_ms, fresh = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local page = redis.call('HSCAN', HOLDERS, ARGV[1], 'COUNT', ARGV[2])
local claimed = {}

for index = 1, #page[2], 2 do
  local id = page[2][index]
  local record = find(id)
  if record and record.group == group and not record.claimant then
    claimed[#claimed + 1] = claim(id, record, claimant, hold, ttl_ms, fresh)
  end
end
local reply = told()
reply[#reply + 1] = page[1]
for _, one in ipairs(claimed) do add(reply, one) end
return reply
