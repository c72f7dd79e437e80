-- Leave a tombstone that keeps epoch and seq growing, and fences every activation alive. It takes one
-- position for itself: whoever watched the old life to its end cannot slip into a new one.
-- ARGV: ttl in ms, schema
-- {OK}   {DUPLICATE} (deleted already)   {NOTFOUND}   {SCHEMA, stored schema}   {CORRUPT, key, what}

local ttl_ms, schema = ARGV[1], tonumber(ARGV[2])
local meta, trouble = read_meta()
if trouble then return trouble end
if meta and meta.schema > schema then return {'SCHEMA', meta.schema} end
if not meta then return {'NOTFOUND'} end
if meta.deleted then
  refresh(ttl_ms)
  return {'DUPLICATE'}
end

redis.call('DEL', SNAPSHOT, JOURNAL)
redis.call('HDEL', META, 'snapshot', 'participants', 'created_at', 'active_at', 'lineage', 'kept')
local seq = meta.seq + 1
redis.call('HSET', META, 'epoch', meta.epoch + 1, 'owner', '', 'seq', seq, 'base', seq, 'first', seq, 'deleted', 1)
refresh(ttl_ms)
return {'OK'}
