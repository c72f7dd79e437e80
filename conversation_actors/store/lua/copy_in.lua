-- Write everything of a conversation and of its backlog, where there is nothing.
-- KEYS[1] meta   KEYS[2] snapshot   KEYS[3] journal   KEYS[4] list: records   KEYS[5] hash: see _backlog.lua
-- ARGV: ms to keep meta, snapshot and journal, ms to keep the rest, number of values of meta, of snapshots (0 or 1), of
-- journal entries, of values of the hash, of records, and all of these
-- {OK}   {EXISTS} (nothing was written)

local AT_ONCE = 1000 -- unpack() fails near 8000 values; even, as values of hashes come in pairs
local FIRST = 8

if redis.call('EXISTS', unpack(KEYS)) > 0 then return {'EXISTS'} end
local place = FIRST

local function put(command, key, count, ttl_ms)
  local last = place + count - 1
  for first = place, last, AT_ONCE do
    redis.call(command, key, unpack(ARGV, first, math.min(first + AT_ONCE - 1, last)))
  end
  place = last + 1
  if count > 0 and tonumber(ttl_ms) > 0 then redis.call('PEXPIRE', key, ttl_ms) end
end

put('HSET', KEYS[1], tonumber(ARGV[3]), ARGV[1])
put('SET', KEYS[2], tonumber(ARGV[4]), ARGV[1])
put('RPUSH', KEYS[3], tonumber(ARGV[5]), ARGV[1])
put('HSET', KEYS[5], tonumber(ARGV[6]), ARGV[2])
put('RPUSH', KEYS[4], tonumber(ARGV[7]), ARGV[2])
return {'OK'}
