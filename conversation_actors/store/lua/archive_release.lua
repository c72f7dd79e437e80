-- Let other archivers take a backlog.
-- KEYS[1] hash: see _backlog.lua
-- ARGV: archiver
-- {OK}   {LOST} (it is another archiver's, or nobody's)

if redis.call('HGET', KEYS[1], 'archiver') ~= ARGV[1] then return {'LOST'} end
redis.call('HDEL', KEYS[1], 'archiver', 'until')
return {'OK'}
