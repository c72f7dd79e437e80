-- Write entries behind expected_seq, all or none.
-- ARGV: epoch, owner, expected_seq, ttl in ms, participants (JSON list, or '' to leave them), entry …
-- {OK}   {DUPLICATE}   {FENCED}   {GAP}   {CORRUPT, key, what}

local FIRST_ENTRY = 6
local AT_ONCE = 1000 -- unpack() fails near 8000 values

local epoch, owner, expected_seq, ttl_ms, participants = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local count = #ARGV - FIRST_ENTRY + 1
local meta, trouble = read_meta()
if trouble then return trouble end
if not meta then return {'GAP'} end
if is_fenced(meta, epoch, owner) then return {'FENCED'} end
if meta.epoch < epoch or meta.seq < expected_seq or contradiction(meta) then return {'GAP'} end

if meta.seq ~= expected_seq then
  if count > 0 and meta.seq ~= expected_seq + count then
    return {'CORRUPT', META, string.format('seq is %d where its owner expects %d', meta.seq, expected_seq)}
  end
  refresh(ttl_ms)
  return {count > 0 and 'DUPLICATE' or 'OK'}
end

for first = FIRST_ENTRY, #ARGV, AT_ONCE do
  redis.call('RPUSH', JOURNAL, unpack(ARGV, first, math.min(first + AT_ONCE - 1, #ARGV)))
end
if count > 0 then redis.call('HSET', META, 'seq', expected_seq + count, 'active_at', now_ms()) end
if participants ~= '' then redis.call('HSET', META, 'participants', participants) end
refresh(ttl_ms)
return {'OK'}
