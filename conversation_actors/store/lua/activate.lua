-- Take the next epoch and read everything.
-- ARGV: owner, create (1 or 0), ttl of what is created in ms, schema
-- {OK, epoch, seq, base, life, created (1 or 0), snapshot or nil, journal}
-- {NOTFOUND}   {SCHEMA, stored schema}   {CORRUPT, key, what}

local owner, create, ttl_ms, schema = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local meta, trouble = read_meta()
if trouble then return trouble end
if meta and meta.schema > schema then return {'SCHEMA', meta.schema} end

local living = meta and not meta.deleted
if not living and not create then return {'NOTFOUND'} end
if not living then
  meta = meta or {epoch = 0, seq = 0}
  meta.owner, meta.base, meta.first, meta.snapshot, meta.born = false, meta.seq, meta.seq, 0, meta.epoch + 1
  meta.life = owner
end
trouble = contradiction(meta)
if trouble then return trouble end

local snapshot = redis.call('GET', SNAPSHOT)
local journal = redis.call('LRANGE', JOURNAL, 0, -1)
local now = now_ms()
if meta.owner ~= owner then
  meta.epoch = meta.epoch + 1
  redis.call('HSET', META, 'epoch', meta.epoch, 'owner', owner, 'schema', schema, 'active_at', now)
end
if not living then
  redis.call('HSET', META, 'seq', meta.seq, 'base', meta.base, 'first', meta.first, 'born', meta.born, 'life', owner,
    'created_at', now, 'participants', '[]')
  redis.call('HDEL', META, 'deleted', 'snapshot')
end
if living then leave_ttl(ttl_ms) else refresh(ttl_ms) end
return {'OK', meta.epoch, meta.seq, meta.base, meta.life, meta.born == meta.epoch and 1 or 0, snapshot, journal}
