-- Nobody is expected any more under this token.
-- KEYS[1] hash: token → what is told
-- ARGV: token
-- {OK}   {LOST} (it is there no more)

return {redis.call('HDEL', KEYS[1], ARGV[1]) == 1 and 'OK' or 'LOST'}
