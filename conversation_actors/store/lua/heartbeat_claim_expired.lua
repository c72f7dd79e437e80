-- Claim records whose deadline has passed, the oldest first; drop those that nobody has claimed for too long.
-- ARGV: claimant, hold in ms, most records, forget in ms, ttl in ms
-- {OK, id, record, ms since its deadline, …}

local AT_ONCE = 1000 -- forgotten at a time; those beyond are not claimed either
local claimant, hold, most, forget, ttl_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local oldest = '(' .. whole(NOW - forget)
local reply = {'OK'}

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', whole(NOW - forget), 'LIMIT', 0, AT_ONCE)) do
  drop(id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, oldest, whole(NOW), 'LIMIT', 0, most)) do
  local record, deadline = find(id)
  if record then
    claim(reply, id, record, deadline, claimant, hold, ttl_ms)
  else
    drop(id)
  end
end
return reply
