-- Write entries after expected_seq, all or none; where conversations are archived, into the backlog too.
-- ARGV: life, epoch, owner, expected_seq, ttl in ms, ms that it is kept after its last use, participants (JSON list,
-- or '' to leave them), with the keys of a backlog six that tell of the push (_backlog.lua), entry …
-- {OK, records given up}   {UNLISTED, mark}   {DUPLICATE}   {GAP}   {FOREIGN, life, epoch, owner, seq}   {CORRUPT, key, what}

local is_archived = ARCHIVE ~= nil
local FIRST_ENTRY = is_archived and 14 or 8

local life, epoch, owner, expected_seq = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local left_ms, kept_ms, participants = ARGV[5], ARGV[6], ARGV[7]
local count = #ARGV - FIRST_ENTRY + 1
local meta, trouble = read_meta()
if trouble then return trouble end
if not meta then return {'GAP'} end
if not is_own(meta, life, epoch, owner) then return foreign(meta) end
if meta.seq < expected_seq or contradiction(meta) then return {'GAP'} end

if meta.seq ~= expected_seq then
  if count > 0 and meta.seq ~= expected_seq + count then
    return {'CORRUPT', META, string.format('seq is %d where its owner expects %d', meta.seq, expected_seq)}
  end
  keep(meta, left_ms, kept_ms)
  return {count > 0 and 'DUPLICATE' or 'OK'}
end

local push, unlisted
if is_archived and count > 0 then
  push, unlisted = told_to_push(8)
  if unlisted then return unlisted end
  push_entries(push, FIRST_ENTRY)
end
for first = FIRST_ENTRY, #ARGV, AT_ONCE do
  redis.call('RPUSH', JOURNAL, unpack(ARGV, first, math.min(first + AT_ONCE - 1, #ARGV)))
end
if count > 0 then redis.call('HSET', META, 'seq', expected_seq + count, 'active_at', now_ms()) end
if participants ~= '' then redis.call('HSET', META, 'participants', participants) end
keep(meta, left_ms, kept_ms)
return {'OK', push and settle_push(push) or 0}
