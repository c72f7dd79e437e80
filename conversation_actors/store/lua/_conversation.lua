-- Put in front of every script that touches one conversation.
-- KEYS[1] meta   KEYS[2] snapshot   KEYS[3] journal; and where conversations are archived, for a script that says so,
-- KEYS[4] backlog   KEYS[5] archive (see _backlog.lua), whose time to live is their own
--
-- meta is a hash: epoch, owner, seq; base (the position of the snapshot, or where this life began); first
-- (the journal holds exactly entries first+1 … seq, and first <= base); start (the position at which this life began;
-- base where it is missing); snapshot (1 when the key must exist);
-- born and life (the epoch, and the owner, that created this life); lineage (JSON list of the claims before the
-- present one, the oldest first, each as [life, epoch, owner, seq where the next one took over]); kept (ms that the
-- conversation is kept after its last use); schema; created_at and active_at (ms, server time); participants
-- (JSON list); deleted (1 on a tombstone).
--
-- A script that fails half-way keeps what it wrote: all reads, and all checks, come before the first
-- write, and the first write is one that a server out of memory refuses.

local META, SNAPSHOT, JOURNAL = KEYS[1], KEYS[2], KEYS[3]
local OWN_KEYS = {META, SNAPSHOT, JOURNAL}

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

local function whole_number(text)
  return text and string.match(text, '^%d+$') and tonumber(text) or nil
end

local function read_meta()
  local raw = redis.call('HMGET', META, 'epoch', 'owner', 'seq', 'base', 'snapshot', 'born', 'schema', 'deleted', 'first', 'life',
    'kept', 'start')
  if not raw[1] and redis.call('EXISTS', META) == 0 then return nil, nil end
  local meta = {
    epoch = whole_number(raw[1]), owner = raw[2], seq = whole_number(raw[3]), base = whole_number(raw[4]),
    snapshot = raw[5] == '1' and 1 or 0, born = whole_number(raw[6]), schema = whole_number(raw[7]),
    deleted = raw[8] == '1', first = whole_number(raw[9]), life = raw[10] or '', kept = raw[11],
    start = whole_number(raw[12]) or whole_number(raw[4]),
  }
  if not (meta.epoch and meta.owner and meta.seq and meta.base and meta.born and meta.schema and meta.first)
    or meta.base > meta.seq or meta.first > meta.base then
    return nil, {'CORRUPT', META, 'its fields are missing or contradict each other'}
  end
  return meta, nil
end

-- What keeps journal and snapshot from being what meta says; nil when all is well. O(1).
local function contradiction(meta)
  local entries = redis.call('LLEN', JOURNAL)
  if entries ~= meta.seq - meta.first then
    return {'CORRUPT', JOURNAL, string.format('holds %d entries where meta says %d', entries, meta.seq - meta.first)}
  end
  if redis.call('EXISTS', SNAPSHOT) ~= meta.snapshot then
    return {'CORRUPT', SNAPSHOT, meta.snapshot == 1 and 'is gone' or 'exists where meta says there is none'}
  end
  return nil
end

-- Whether what is stored was left by this very claim. Its life comes first: epochs are those of one life.
local function is_own(meta, life, epoch, owner)
  return not meta.deleted and meta.life == life and meta.epoch == epoch and meta.owner == owner
end

-- What another claim has left; the client knows whether its own claim followed that one.
local function foreign(meta)
  return {'FOREIGN', meta.life, meta.epoch, meta.owner, meta.seq}
end

-- Leave the time to live as it is: how long a conversation is kept is for its owner to say, who has read it.
-- A write all the same, for a WAIT.
local function leave_ttl(ttl_ms)
  for _, key in ipairs(OWN_KEYS) do
    local left = redis.call('PTTL', key)
    redis.call('PEXPIRE', key, left >= 0 and math.max(1, left) or ttl_ms)
  end
end

-- Also the write that a WAIT on this connection needs, where a repeat finds its work done.
local function refresh(ttl_ms)
  for _, key in ipairs(OWN_KEYS) do redis.call('PEXPIRE', key, ttl_ms) end
end

-- Keep the conversation for `left_ms` from now, of the `kept_ms` after its last use. Others may know of a later use
-- (keep.lua): what they have made longer is shortened only by another retention.
local function keep(meta, left_ms, kept_ms)
  if meta.kept == kept_ms then
    local left = redis.call('PTTL', META)
    if left > tonumber(left_ms) then left_ms = left end
  else
    redis.call('HSET', META, 'kept', kept_ms)
  end
  refresh(left_ms)
end
