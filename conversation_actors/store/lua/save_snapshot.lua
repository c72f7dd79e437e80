-- Store the state at seq and drop the journal up to `keep` entries before; where asked to, restore a store that is
-- behind, damaged or empty.
-- ARGV: epoch, owner, seq, ttl in ms, participants (JSON list), snapshot, schema, keep, life, restore (1 or 0)
-- {OK}   {DUPLICATE}   {FENCED}   {GAP}   {CORRUPT, key, what}

local epoch, owner, seq, ttl_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local participants, snapshot, schema, keep = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local life, may_restore = ARGV[9], ARGV[10] == '1'
local meta, trouble = read_meta()
if trouble then return trouble end
if meta and is_fenced(meta, epoch, owner) then return {'FENCED'} end

local known = meta and meta.epoch == epoch
local damaged = known and contradiction(meta)
if known and seq < meta.seq and damaged then return {'GAP'} end
if known and not damaged and (meta.base > seq or (meta.base == seq and meta.snapshot == 1)) then
  refresh(ttl_ms)
  return {'DUPLICATE'}
end

local is_whole = known and seq <= meta.seq and not damaged
if not is_whole and not may_restore then return {'GAP'} end
redis.call('SET', SNAPSHOT, snapshot)
if is_whole then
  local first = math.max(meta.first, seq - keep)
  redis.call('LTRIM', JOURNAL, first - meta.first, -1)
  redis.call('HSET', META, 'base', seq, 'first', first, 'snapshot', 1, 'schema', schema, 'participants', participants)
else
  -- The snapshot is acknowledged state, and this claim the newest one known: it replaces what is there.
  local now = now_ms()
  redis.call('DEL', JOURNAL)
  redis.call('HSETNX', META, 'created_at', now)
  redis.call('HSETNX', META, 'born', 0)
  redis.call('HSET', META, 'life', life)
  redis.call('HSET', META, 'epoch', epoch, 'owner', owner, 'seq', seq, 'base', seq, 'first', seq, 'snapshot', 1,
    'schema', schema, 'participants', participants, 'active_at', now)
end
refresh(ttl_ms)
return {'OK'}
