-- Claim a backlog for an archiver, and read its first records. A claim only spares double work.
-- KEYS[1] list: records   KEYS[2] hash: see _backlog.lua
-- ARGV: archiver, how long the claim holds in ms, bytes of records to read (but at least one), name for the backlog where
-- it has lost its own
-- {OK, name, records ever taken out, records left behind these, records given up, record …}   {LOST} (another has it)

local AT_ONCE = 64 -- read at a time, so that little is read beyond the bytes

local BACKLOG, ARCHIVE = KEYS[1], KEYS[2]
local raw = redis.call('HMGET', ARCHIVE, 'backlog', 'removed', 'given_up', 'archiver', 'until')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if raw[4] and raw[4] ~= ARGV[1] and tonumber(raw[5] or 0) > now then return {'LOST'} end

local waiting, most = redis.call('LLEN', BACKLOG), tonumber(ARGV[3])
local reply, bytes = {'OK', raw[1] or ARGV[4], tonumber(raw[2] or 0), 0, tonumber(raw[3] or 0)}, 0
local function read()
  for first = 0, waiting - 1, AT_ONCE do
    for index, record in ipairs(redis.call('LRANGE', BACKLOG, first, first + AT_ONCE - 1)) do
      bytes = bytes + #record
      if bytes > most and first + index > 1 then return first + index - 1 end
      reply[#reply + 1] = record
    end
  end
  return waiting
end
reply[4] = waiting - read()
if waiting > 0 then
  -- A server out of memory refuses a script's first write if that may take memory: it is to be emptied all the same.
  redis.call('LTRIM', BACKLOG, 0, -1)
  redis.call('HSET', ARCHIVE, 'archiver', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
  if not raw[1] then redis.call('HSET', ARCHIVE, 'backlog', ARGV[4]) end
  local left = redis.call('PTTL', BACKLOG)
  if left > 0 then redis.call('PEXPIRE', ARCHIVE, left) end
end
return reply
