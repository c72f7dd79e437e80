-- Store the state at seq and drop the journal up to `keep` entries before; where asked to, restore a store that is
-- behind, damaged or empty, or that holds exactly what a claim before this one has left.
-- ARGV: life, epoch, owner, seq, ttl in ms, ms that it is kept after its last use, participants (JSON list), snapshot,
-- schema, entries to keep, restore (1 or 0), lineage (JSON), the position at which this life began, and life, epoch,
-- owner and seq of what may be replaced ('' each: nothing of others)
-- {OK}   {DUPLICATE}   {GAP}   {FOREIGN, life, epoch, owner, seq}   {CORRUPT, key, what}

local life, epoch, owner, seq = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local left_ms, kept_ms, participants, snapshot, schema = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local entries_kept, may_restore, lineage, start = tonumber(ARGV[10]), ARGV[11] == '1', ARGV[12], ARGV[13]
local meta, trouble = read_meta()
if trouble then return trouble end

local function may_be_replaced()
  return may_restore and meta.life == ARGV[14] and meta.epoch == tonumber(ARGV[15]) and meta.owner == ARGV[16]
    and meta.seq == tonumber(ARGV[17])
end

local known = meta and is_own(meta, life, epoch, owner)
if meta and not known and not may_be_replaced() then return foreign(meta) end
local damaged = known and contradiction(meta)
if known and seq < meta.seq and damaged then return {'GAP'} end
if known and not damaged and (meta.base > seq or (meta.base == seq and meta.snapshot == 1)) then
  keep(meta, left_ms, kept_ms)
  return {'DUPLICATE'}
end

local is_whole = known and seq <= meta.seq and not damaged
if not is_whole and not may_restore then return {'GAP'} end
redis.call('SET', SNAPSHOT, snapshot)
if is_whole then
  local first = math.max(meta.first, seq - entries_kept)
  redis.call('LTRIM', JOURNAL, first - meta.first, -1)
  redis.call('HSET', META, 'base', seq, 'first', first, 'snapshot', 1, 'schema', schema, 'participants', participants)
else
  -- The snapshot is acknowledged state, and this claim the newest one known: it replaces what is there.
  local now = now_ms()
  redis.call('DEL', JOURNAL)
  redis.call('HDEL', META, 'deleted')
  redis.call('HSETNX', META, 'created_at', now)
  redis.call('HSETNX', META, 'born', 0)
  redis.call('HSET', META, 'life', life, 'lineage', lineage, 'start', start)
  redis.call('HSET', META, 'epoch', epoch, 'owner', owner, 'seq', seq, 'base', seq, 'first', seq, 'snapshot', 1,
    'schema', schema, 'participants', participants, 'active_at', now)
end
keep(meta or {}, left_ms, kept_ms)
return {'OK'}
