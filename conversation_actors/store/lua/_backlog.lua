-- Put in front of every script that adds to a conversation's backlog, after _conversation.lua.
-- KEYS[4] list: records that wait for the archive, the oldest first, each a header and an entry
-- KEYS[5] hash: backlog (its name; another one after each claim's first records, and after a loss); removed (records
-- ever taken out); bytes (of those that wait); given_up (records dropped for the bound); listed (the mark of the listing
-- under which it was pushed to); unlisted (the mark that was taken out of the listing last); archiver and until (who
-- works on it, and how long, in ms)
--
-- Nothing waits that is not listed. An owner enters the listing, which is in another slot, and pushes with the mark
-- that it got there. An archiver first makes sure here that nothing waits, and that no push with a mark up to the one
-- that it has seen will be let in (unlist), and then takes out that mark and no later one.

local BACKLOG, ARCHIVE = KEYS[4], KEYS[5]
local AT_ONCE = 1000 -- unpack() fails near 8000 values

-- What a script is told of a push, in six of its arguments, the first of them at `place`: mark ('0' if none is known),
-- new (1 if the mark was not pushed with yet), header of the records, name for the backlog, bytes that may wait, ms that
-- they are kept. Second, what is to be answered if the conversation has to enter the listing first, with a later mark.
local function told_to_push(place)
  local raw = redis.call('HMGET', ARCHIVE, 'backlog', 'listed', 'unlisted', 'bytes')
  local mark, is_new = ARGV[place], ARGV[place + 1] == '1'
  local listed, unlisted = tonumber(raw[2] or 0), tonumber(raw[3] or 0)
  local is_listed = raw[2] == mark
  if is_new then is_listed = tonumber(mark) > unlisted end
  if not is_listed then return nil, {'UNLISTED', string.format('%.0f', math.max(listed, unlisted))} end
  return {
    mark = is_new and tonumber(mark) > listed and mark or raw[2], is_new = is_new, header = ARGV[place + 2],
    name = ARGV[place + 3], most = tonumber(ARGV[place + 4]), age_ms = tonumber(ARGV[place + 5]),
    bytes = tonumber(raw[4] or 0),
  }
end

-- Add the arguments from `first_entry` on, as records. Its first write is one that a server out of memory refuses.
local function push_entries(push, first_entry)
  for first = first_entry, #ARGV, AT_ONCE do
    local records = {}
    for index = first, math.min(first + AT_ONCE - 1, #ARGV) do
      local record = push.header .. ARGV[index]
      records[#records + 1] = record
      push.bytes = push.bytes + #record
    end
    push.waiting = redis.call('RPUSH', BACKLOG, unpack(records))
  end
end

-- Whether something is to be forgotten because of a record: a deletion, or an entry that takes out items. The beginning
-- of an entry is fixed (codec.encode_entry), and no text in it can look like it.
local function forgets(record)
  local _, header_end = string.find(record, '\n', 1, true)
  if header_end == #record then return true end
  local event = string.match(record, '^{"v":%d+,"seq":%d+,"epoch":%d+,"at":[^,\n]+,"event":"([a-z_]+)"', (header_end or 0) + 1)
  return event == 'items_removed' or event == 'history_cleared'
end

-- Give up the oldest records beyond the bound, but never the last one, nor those that say what to forget: these go back
-- in front, in their order. Return how many were given up.
--
-- Numbers count from the front (archive_settle), and stay safe: an archiver has taken records from the front, of which
-- at most as many have gone since as `removed` has grown by. So it never drops one that it has not taken. If more have
-- gone than it had taken, some that it has written stay, and are taken again.
local function give_up(push)
  local given_up, waiting, kept = 0, push.waiting, {}
  while push.bytes > push.most and waiting > 1 do
    local oldest = redis.call('LPOP', BACKLOG)
    waiting = waiting - 1
    if forgets(oldest) then
      kept[#kept + 1] = oldest
    else
      push.bytes, given_up = push.bytes - #oldest, given_up + 1
    end
  end
  for last = #kept, 1, -AT_ONCE do
    local back = {}
    for index = last, math.max(last - AT_ONCE + 1, 1), -1 do back[#back + 1] = kept[index] end
    redis.call('LPUSH', BACKLOG, unpack(back))
  end
  return given_up
end

-- Note what was pushed; give up the oldest beyond the bound. Return how many were. The times to live are not written
-- anew for each push, but before a hundredth of them has passed.
local function settle_push(push)
  local given_up = give_up(push)
  redis.call('HSET', ARCHIVE, 'bytes', math.max(0, push.bytes))
  if push.is_new then redis.call('HSET', ARCHIVE, 'backlog', push.name, 'listed', push.mark) end
  if given_up > 0 then
    redis.call('HINCRBY', ARCHIVE, 'removed', given_up)
    redis.call('HINCRBY', ARCHIVE, 'given_up', given_up)
  end
  if redis.call('PTTL', BACKLOG) < 0.99 * push.age_ms then
    redis.call('PEXPIRE', BACKLOG, push.age_ms)
    redis.call('PEXPIRE', ARCHIVE, push.age_ms)
  end
  return given_up
end

-- Let one record, which says that a life was deleted, take the place of all the `waiting` ones.
local function push_deletion(push, header, waiting)
  redis.call('DEL', BACKLOG)
  redis.call('RPUSH', BACKLOG, header)
  if waiting > 0 then redis.call('HINCRBY', ARCHIVE, 'removed', waiting) end
  push.bytes, push.waiting = #header, 1
  settle_push(push)
end

local function header_of(record)
  return string.match(record or '', '^[^\n]*\n')
end
