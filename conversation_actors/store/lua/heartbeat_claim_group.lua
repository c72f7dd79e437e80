-- Claim the unclaimed records of one group, of a part of all records: go on with the cursor until it is 0.
-- ARGV: cursor, how many records to look at, group, claimant, hold in ms, ttl in ms
-- {OK, cursor, id, record, ms since its deadline, …}

local group, claimant, hold, ttl_ms = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local page = redis.call('HSCAN', HOLDERS, ARGV[1], 'COUNT', ARGV[2])
local reply = {'OK', page[1]}

for index = 1, #page[2], 2 do
  local id = page[2][index]
  local record, deadline = find(id)
  if record and record.group == group and not record.claimant then
    claim(reply, id, record, deadline, claimant, hold, ttl_ms)
  end
end
return reply
