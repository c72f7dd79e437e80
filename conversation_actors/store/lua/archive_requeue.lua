-- Add entries of a claim's life to the backlog again, because the store has lost acknowledged writes. Nothing else of the
-- conversation changes.
-- ARGV: life, epoch, owner, life, epoch, owner and seq of what another claim may have left ('' each: nothing), six that
-- tell of the push (_backlog.lua), entry …
-- {OK, records given up}   {UNLISTED, mark}   {FOREIGN, life, epoch, owner, seq}   {CORRUPT, key, what}

local FIRST_ENTRY = 14

local meta, trouble = read_meta()
if trouble then return trouble end
local function may_be_replaced()
  return meta.life == ARGV[4] and meta.epoch == tonumber(ARGV[5]) and meta.owner == ARGV[6] and meta.seq == tonumber(ARGV[7])
end
if meta and not is_own(meta, ARGV[1], tonumber(ARGV[2]), ARGV[3]) and not may_be_replaced() then return foreign(meta) end

local push, unlisted = told_to_push(8)
if unlisted then return unlisted end
push_entries(push, FIRST_ENTRY)
return {'OK', settle_push(push)}
