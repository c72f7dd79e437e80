-- Store a conversation as a claim that is gone would have left it, if nothing at all is stored of it.
-- ARGV: life, epoch, owner, start, seq, snapshot, lineage (JSON), participants (JSON list), ttl in ms, ms that it is kept
-- after its last use, schema
-- {OK}   {LOST} (something is there, or its deletion waits for the archive)

if redis.call('EXISTS', META, SNAPSHOT, JOURNAL) > 0 then return {'LOST'} end
local last = ARCHIVE and redis.call('LINDEX', BACKLOG, -1)
if last and header_of(last) == last then return {'LOST'} end

local now = now_ms()
redis.call('SET', SNAPSHOT, ARGV[6])
redis.call('HSET', META, 'life', ARGV[1], 'epoch', ARGV[2], 'owner', ARGV[3], 'start', ARGV[4], 'seq', ARGV[5], 'base', ARGV[5],
  'first', ARGV[5], 'snapshot', 1, 'lineage', ARGV[7], 'participants', ARGV[8], 'born', 0, 'kept', ARGV[10], 'schema', ARGV[11],
  'created_at', now, 'active_at', now)
refresh(ARGV[9])
return {'OK'}
