-- Put in front of every script on the signs of life of one lease's holders.
-- KEYS[1] zset: conversation id by deadline in ms, server time   KEYS[2] hash: conversation id → record
--
-- A record is JSON: holder, group, details (JSON, as text), attempt, and claimant once somebody has claimed the
-- conversation. What is in one key only, or cannot be read, is no record.

local DEADLINES, HOLDERS = KEYS[1], KEYS[2]

local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

local function parsed(text)
  local is_json, record = pcall(cjson.decode, text)
  if not is_json or type(record) ~= 'table' or type(record.attempt) ~= 'number' then return nil end
  if not (record.holder and record.group and record.details) then return nil end
  return record
end

-- The record and its deadline, or nil.
local function find(id)
  local text, deadline = redis.call('HGET', HOLDERS, id), redis.call('ZSCORE', DEADLINES, id)
  if not (text and deadline) then return nil, nil end
  return parsed(text), tonumber(deadline)
end

-- A key that was just written is kept for `valid_for` ms, and never shorter than before: others may have other settings.
local function keep(key, valid_for)
  if redis.call('PTTL', key) < valid_for then redis.call('PEXPIRE', key, whole(valid_for)) end
end

-- Keep a record until `valid_for` ms from now, and the keys for at least `ttl_ms`.
local function put(id, record, valid_for, ttl_ms)
  local longest = math.max(valid_for, ttl_ms)
  redis.call('HSET', HOLDERS, id, cjson.encode(record))
  keep(HOLDERS, longest)
  redis.call('ZADD', DEADLINES, whole(NOW + valid_for), id)
  keep(DEADLINES, longest)
end

local function drop(id)
  redis.call('HDEL', HOLDERS, id)
  redis.call('ZREM', DEADLINES, id)
end

-- What a reply says of one record: id, record, ms since its deadline.
local function tell(reply, id, record, deadline)
  reply[#reply + 1] = id
  reply[#reply + 1] = cjson.encode(record)
  reply[#reply + 1] = whole(NOW - deadline)
end

-- Make the record `claimant`'s, and tell of it.
local function claim(reply, id, record, deadline, claimant, hold, ttl_ms)
  record.claimant, record.attempt = claimant, record.attempt + 1
  put(id, record, hold, ttl_ms)
  tell(reply, id, record, deadline)
end
