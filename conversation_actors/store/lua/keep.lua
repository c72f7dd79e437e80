-- Count as use: keep the conversation from now on for as long as its retention says.
-- ARGV: ttl in ms, where nothing says how long it is kept
-- {OK, ms that it is kept}   {NOTFOUND}   {CORRUPT, key, what}

local meta, trouble = read_meta()
if trouble then return trouble end
if not meta or meta.deleted then return {'NOTFOUND'} end
local kept_ms = tonumber(meta.kept or ARGV[1])
refresh(math.max(kept_ms, redis.call('PTTL', META)))
return {'OK', kept_ms}
