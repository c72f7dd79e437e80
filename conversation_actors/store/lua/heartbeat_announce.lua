-- A holder is on its way to a record that it has not begun: noted beside what it has begun.
-- KEYS[4] set: what this holder has begun, or is on its way to
-- ARGV: conversation id, how long to remember it in ms
-- {OK}

remember(KEYS[4], ARGV[1], tonumber(ARGV[2]))
return {'OK'}
