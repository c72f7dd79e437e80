-- Read one record.
-- ARGV: conversation id
-- {OK, id, record, ms since its deadline}   {LOST} (there is none)

local record, deadline = find(ARGV[1])
if not record then return {'LOST'} end
local reply = {'OK'}
tell(reply, ARGV[1], record, deadline)
return reply
