-- Expect somebody in one place, for a time by the server's clock. One that steps ahead makes it forget early, and
-- whoever comes then finds out by itself whom it follows.
-- KEYS[1] hash: token → when it is over, in ms, a blank, and what is told
-- ARGV: token, what is told, how long to keep it in ms, new (1), or only where it is there still (0), most of them
-- {OK}   {LOST} (it is there no more)

local key, token, told, keep_ms, is_new, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

local here = redis.call('HGETALL', key)
local count, is_here, first, first_token = 0, false, math.huge, nil
for index = 1, #here, 2 do
  local over = tonumber(string.match(here[index + 1], '^(%d+) ')) or 0
  if over <= now then
    redis.call('HDEL', key, here[index])
  else
    count = count + 1
    is_here = is_here or here[index] == token
    if over < first then first, first_token = over, here[index] end
  end
end
if not is_here then
  if not is_new then return {'LOST'} end
  if count >= most then redis.call('HDEL', key, first_token) end
end
redis.call('HSET', key, token, whole(now + keep_ms) .. ' ' .. told)
if redis.call('PTTL', key) < keep_ms then redis.call('PEXPIRE', key, whole(keep_ms)) end
return {'OK'}
