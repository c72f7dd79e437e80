-- Read one page of a listing, the highest scores first. Entries of one score are never parted, so that
-- the lowest score of a page is all that is needed to ask for the next one.
-- KEYS[1] zset: conversation id by time of last activity in ms
-- ARGV: upper bound of the score ('+inf', or '(score' to leave that score out), entries wanted
-- {OK, member, score, member, score, …}

local page = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local lowest = page[#page]
while lowest and page[#page] == lowest do
  page[#page] = nil
  page[#page] = nil
end
local ties = lowest and redis.call('ZREVRANGEBYSCORE', KEYS[1], lowest, lowest, 'WITHSCORES') or {}
local reply = {'OK'}
for _, part in ipairs(page) do reply[#reply + 1] = part end
for _, part in ipairs(ties) do reply[#reply + 1] = part end
return reply
