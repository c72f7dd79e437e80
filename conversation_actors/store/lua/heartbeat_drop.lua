-- Drop those of some records that still stand at the beats at which they were seen.
-- ARGV: incarnation of the beats, id, beat, …
-- {OK}

for index = 2, #ARGV, 2 do
  if stands(ARGV[index], ARGV[1], ARGV[index + 1]) then drop(ARGV[index]) end
end
return {'OK'}
