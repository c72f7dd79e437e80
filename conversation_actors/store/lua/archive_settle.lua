-- Drop the first records of a backlog, up to a number.
-- KEYS[1] list: records   KEYS[2] hash: see _backlog.lua
-- ARGV: name of the backlog, number of the last record to drop, ms that the rest is kept
-- {OK}   {LOST} (it is another backlog)

local AT_ONCE = 1000

local BACKLOG, ARCHIVE = KEYS[1], KEYS[2]
local raw = redis.call('HMGET', ARCHIVE, 'backlog', 'removed', 'bytes')
if raw[1] ~= ARGV[1] then return {'LOST'} end
local removed, bytes = tonumber(raw[2] or 0), tonumber(raw[3] or 0)
local through = tonumber(ARGV[2])
while removed < through do
  local dropped = redis.call('LPOP', BACKLOG, math.min(through - removed, AT_ONCE))
  if not dropped or #dropped == 0 then break end
  removed = removed + #dropped
  for _, record in ipairs(dropped) do bytes = bytes - #record end
end
redis.call('PEXPIRE', BACKLOG, ARGV[3])
redis.call('PEXPIRE', ARCHIVE, ARGV[3])
redis.call('HSET', ARCHIVE, 'removed', removed, 'bytes', redis.call('EXISTS', BACKLOG) == 1 and math.max(0, bytes) or 0)
return {'OK'}
