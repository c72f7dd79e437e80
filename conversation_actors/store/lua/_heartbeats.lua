-- Put in front of every script on the signs of life of one lease's holders.
-- KEYS[1] zset: conversation id by the beat at which its record stands   KEYS[2] hash: conversation id → record
-- KEYS[3] hash: incarnation, count: the number of the last beat
--
-- A record is JSON: holder, group, details (a JSON object, as text), attempt, valid_for in ms, and claimant once
-- somebody has claimed the conversation. What is in one key only, or cannot be read, is no record. Every change of a
-- record is a beat, with the next number. No clock is read: how long a record has been silent is for readers to see.

local BEATS, HOLDERS, CLOCK = KEYS[1], KEYS[2], KEYS[3]

local function whole(number)
  return string.format('%.0f', number)
end

local function is_count(number)
  return number and number >= 0 and number < 2 ^ 53 and number == math.floor(number)
end

local function is_object(text)
  if type(text) ~= 'string' or not string.find(text, '^%s*{') then return false end
  return (pcall(cjson.decode, text))
end

local function parsed(text)
  local is_json, record = pcall(cjson.decode, text)
  if not is_json or type(record) ~= 'table' then return nil end
  if type(record.attempt) ~= 'number' or not is_count(record.attempt) then return nil end
  if type(record.valid_for) ~= 'number' or not is_count(record.valid_for - 1) then return nil end
  if type(record.holder) ~= 'string' or type(record.group) ~= 'string' or not is_object(record.details) then return nil end
  if record.claimant ~= nil and type(record.claimant) ~= 'string' then return nil end
  return record
end

-- Which beats these are, and how many there were; nil where that was lost, or cannot be read.
local function clock()
  local told = redis.call('HMGET', CLOCK, 'incarnation', 'count')
  local count = tonumber(told[2] or nil)
  if not (told[1] and is_count(count)) then return nil, 0 end
  return told[1], count
end

-- The record and its beat, or nil.
local function find(id)
  local text, beat = redis.call('HGET', HOLDERS, id), redis.call('ZSCORE', BEATS, id)
  if not (text and beat) then return nil, nil end
  return parsed(text), tonumber(beat)
end

-- A key that was just written is kept for `valid_for` ms, and never shorter than before: others may have other settings.
local function keep(key, valid_for)
  if redis.call('PTTL', key) < valid_for then redis.call('PEXPIRE', key, whole(valid_for)) end
end

-- Note that a holder has begun a record, or is on its way to one, for `remember_ms` from now.
local function remember(key, id, remember_ms)
  redis.call('SADD', key, id)
  keep(key, remember_ms)
end

-- The number of the beat that happens now. Where the clock was lost a new incarnation begins, above all that is left:
-- a number that comes again belongs to another incarnation.
local function tick(fresh, longest)
  local incarnation, count = clock()
  if not incarnation then
    local highest = tonumber(redis.call('ZRANGE', BEATS, -1, -1, 'WITHSCORES')[2] or nil)
    incarnation, count = fresh, is_count(highest) and highest or 0
  end
  redis.call('HSET', CLOCK, 'incarnation', incarnation, 'count', whole(count + 1))
  keep(CLOCK, longest)
  return count + 1
end

-- Write a record that is valid for `valid_for` ms from now, and keep the keys for at least `ttl_ms`; returns its beat.
local function put(id, record, valid_for, ttl_ms, fresh)
  local longest = math.max(valid_for, ttl_ms)
  local beat = tick(fresh, longest)
  record.valid_for = valid_for
  redis.call('HSET', HOLDERS, id, cjson.encode(record))
  keep(HOLDERS, longest)
  redis.call('ZADD', BEATS, whole(beat), id)
  keep(BEATS, longest)
  return beat
end

local function drop(id)
  redis.call('HDEL', HOLDERS, id)
  redis.call('ZREM', BEATS, id)
end

-- How a reply begins: OK, incarnation, count.
local function told()
  local incarnation, count = clock()
  return {'OK', incarnation or '', whole(count)}
end

-- What a reply says of one record: id, record, beat.
local function tell(reply, id, text, beat)
  reply[#reply + 1] = id
  reply[#reply + 1] = text or ''
  reply[#reply + 1] = beat
end

-- Whether a record still stands at the very beat that a reader has seen.
local function stands(id, incarnation, beat)
  local score = redis.call('ZSCORE', BEATS, id)
  return score and tonumber(score) == tonumber(beat) and (clock() or '') == incarnation
end

-- Make the record `claimant`'s for `hold` ms; what to tell of it.
local function claim(id, record, claimant, hold, ttl_ms, fresh)
  record.claimant, record.attempt = claimant, record.attempt + 1
  local beat = put(id, record, hold, ttl_ms, fresh)
  return {id, cjson.encode(record), whole(beat)}
end

local function add(reply, parts)
  for _, part in ipairs(parts) do reply[#reply + 1] = part end
end
