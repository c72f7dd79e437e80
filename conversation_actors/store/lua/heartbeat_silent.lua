-- Read the records that have not been heard of since a beat, as they are, those that are silent for longest first.
-- ARGV: the beat behind which to begin, the last beat to look at, most records
-- {OK, incarnation, count, id, record ('' where there is none), beat, …}

local found = redis.call('ZRANGEBYSCORE', BEATS, '(' .. ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local reply = told()
for index = 1, #found, 2 do
  tell(reply, found[index], redis.call('HGET', HOLDERS, found[index]), found[index + 1])
end
return reply
