-- Take the next epoch and read everything.
-- ARGV: owner, create (1 or 0), ttl of what is created in ms, schema
-- {OK, epoch, seq, base, life, start, created (1 or 0), lineage, ms left to live, server time in ms, snapshot or nil,
-- journal}
-- {NOTFOUND}   {SCHEMA, stored schema}   {CORRUPT, key, what}

local MAX_CLAIMS = 16 -- of the lineage

local owner, create, ttl_ms, schema = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local meta, trouble = read_meta()
if trouble then return trouble end
if meta and meta.schema > schema then return {'SCHEMA', meta.schema} end

local living = meta and not meta.deleted
if not living and not create then return {'NOTFOUND'} end

-- The claims before this one, as JSON. One that cannot be read is as good as none: readers then start anew.
local function lineage()
  local stored = living and redis.call('HGET', META, 'lineage') or '[]'
  if not meta or meta.owner == owner then return stored end
  local is_json, claims = pcall(cjson.decode, stored)
  if not is_json or type(claims) ~= 'table' then claims = {} end
  claims[#claims + 1] = {meta.life, meta.epoch, meta.owner, meta.seq}
  while #claims > MAX_CLAIMS do table.remove(claims, 1) end
  return cjson.encode(claims)
end

local claims = lineage()
if not living then
  meta = meta or {epoch = 0, seq = 0}
  meta.owner, meta.base, meta.first, meta.snapshot, meta.born = false, meta.seq, meta.seq, 0, meta.epoch + 1
  meta.life, meta.start = owner, meta.seq
end
trouble = contradiction(meta)
if trouble then return trouble end

local snapshot = redis.call('GET', SNAPSHOT)
local journal = redis.call('LRANGE', JOURNAL, 0, -1)
local left_ms = living and redis.call('PTTL', META) or tonumber(ttl_ms)
local now = now_ms()
if meta.owner ~= owner then
  meta.epoch = meta.epoch + 1
  redis.call('HSET', META, 'epoch', meta.epoch, 'owner', owner, 'lineage', claims, 'schema', schema, 'active_at', now,
    'start', meta.start)
end
if not living then
  redis.call('HSET', META, 'seq', meta.seq, 'base', meta.base, 'first', meta.first, 'born', meta.born, 'life', owner,
    'kept', ttl_ms, 'created_at', now, 'participants', '[]')
  redis.call('HDEL', META, 'deleted', 'snapshot')
end
if living then leave_ttl(ttl_ms) else refresh(ttl_ms) end
local created = meta.born == meta.epoch and 1 or 0
return {'OK', meta.epoch, meta.seq, meta.base, meta.life, meta.start, created, claims, left_ms, now, snapshot, journal}
