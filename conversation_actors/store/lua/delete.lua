-- Leave a tombstone that keeps epoch and seq growing, and fences every activation alive. It takes one
-- position for itself: whoever watched the old life to its end cannot slip into a new one.
-- ARGV: ttl in ms, schema; with the keys of a backlog six that tell of the push (_backlog.lua), without a header
-- {OK}   {DUPLICATE} (deleted already)   {NOTFOUND}   {UNLISTED, mark}   {SCHEMA, stored schema}   {CORRUPT, key, what}
--
-- Where conversations are archived, what is not here may be in the archive: a tombstone is left all the same, so that
-- nobody revives it, and {DUPLICATE} is the answer if nothing of it waited in the backlog either.

local ttl_ms, schema = ARGV[1], tonumber(ARGV[2])
local meta, trouble = read_meta()
if trouble then return trouble end
if meta and meta.schema > schema then return {'SCHEMA', meta.schema} end
local is_archived = ARCHIVE ~= nil
if not meta and not is_archived then return {'NOTFOUND'} end

local push, unlisted
local waiting = is_archived and redis.call('LLEN', BACKLOG) or 0
local function push_told()
  push, unlisted = told_to_push(3)
  return push
end

-- Push the deletion of the life that a record's header names, and say when it was: seconds, by this server.
local function push_deletion_now(header)
  local at = string.format(',%.3f]\n', now_ms() / 1000)
  push_deletion(push, (string.gsub(header, '%]\n$', at)), waiting)
end

if not meta then
  local last = redis.call('LINDEX', BACKLOG, -1)
  local header = header_of(last)
  local is_waiting = header and #last > #header
  if is_waiting and not push_told() then return unlisted end
  redis.call('DEL', SNAPSHOT, JOURNAL)
  redis.call('HSET', META, 'epoch', 0, 'owner', '', 'seq', 0, 'base', 0, 'first', 0, 'born', 0, 'life', '', 'schema', schema,
    'deleted', 1)
  if is_waiting then push_deletion_now(header) end
  refresh(ttl_ms)
  return {is_waiting and 'OK' or 'DUPLICATE'}
end
if meta.deleted then
  refresh(ttl_ms)
  return {'DUPLICATE'}
end

if is_archived and not push_told() then return unlisted end
redis.call('DEL', SNAPSHOT, JOURNAL)
redis.call('HDEL', META, 'snapshot', 'participants', 'created_at', 'active_at', 'lineage', 'kept', 'start')
local seq = meta.seq + 1
redis.call('HSET', META, 'epoch', meta.epoch + 1, 'owner', '', 'seq', seq, 'base', seq, 'first', seq, 'deleted', 1)
if push then push_deletion_now(cjson.encode({meta.life, meta.start, meta.epoch + 1, ''}) .. '\n') end
refresh(ttl_ms)
return {'OK'}
