-- Appends entries to partitions of the event log: all of them, or none.
-- KEYS: for each partition its log, its state, the idempotency keys of today and of yesterday.
-- ARGV: the clock's instant; entries and bytes that a log holds at most; an idempotency key ('' for none), the digest of
-- what came with it, for how many seconds today's keys are kept, how many of them at most. Then for each partition: an
-- origin ('' for none), the position up to which it was taken before, the position up to which it is then; how many
-- entries more of the same push come to this log (-1: it takes them though it be full); how many entries come now; for each its rows, the lowest id that its
-- first row may have, and its content.
-- Returns {'ok', id of the last row in each partition (0: this push was there already)...}, or what stands against it
-- and in which partition: {'full', i}, {'keys', i}, {'other', i}, {'moved', i, the position really taken}.

local now, entries_max, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local push, digest, kept_seconds, pushes_max = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local partitions, at = {}, 8

for i = 1, #KEYS / 4 do
  local log, state, pushes, older = KEYS[4 * i - 3], KEYS[4 * i - 2], KEYS[4 * i - 1], KEYS[4 * i]
  local p = { origin = ARGV[at], taken = ARGV[at + 1], upto = ARGV[at + 2], entries = {}, bytes = 0, rows = 0 }
  local later, count = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5
  for e = 1, count do
    p.entries[e] = { rows = tonumber(ARGV[at]), floor = tonumber(ARGV[at + 1]), content = ARGV[at + 2] }
    p.bytes = p.bytes + #ARGV[at + 2]
    p.rows = p.rows + p.entries[e].rows
    at = at + 3
  end
  partitions[i] = p
  if push ~= '' then
    local known = redis.call('HGET', pushes, push) or redis.call('HGET', older, push)
    if known and known ~= digest then
      return { 'other', i }
    end
    p.is_repeated = known
    if not known and redis.call('HLEN', pushes) >= pushes_max then
      return { 'keys', i }
    end
  end
  if not p.is_repeated then
    if p.origin ~= '' then
      local really = redis.call('HGET', state, 'from:' .. p.origin) or ''
      if really ~= p.taken then
        return { 'moved', i, really }
      end
    end
    if count > 0 and later >= 0 then
      local bytes = redis.call('HMGET', state, 'bytes', 'done_bytes')
      local held = (tonumber(bytes[1]) or 0) - (tonumber(bytes[2]) or 0)
      -- An empty log takes a push of any size, or the largest would never find room.
      local length = redis.call('XLEN', log)
      if length > 0 and (length + count + later > entries_max or held + p.bytes > bytes_max) then
        return { 'full', i }
      end
    end
  end
end

local reply = { 'ok' }
for i, p in ipairs(partitions) do
  local log, state, pushes = KEYS[4 * i - 3], KEYS[4 * i - 2], KEYS[4 * i - 1]
  reply[i + 1] = '0'
  if not p.is_repeated then
    local last = tonumber(redis.call('HGET', state, 'last') or 0)
    for _, entry in ipairs(p.entries) do
      last = math.max(now, last + 1, entry.floor) + entry.rows - 1
      redis.call('XADD', log, string.format('%.0f-0', last), 'e', entry.content)
    end
    reply[i + 1] = string.format('%.0f', last)
    if #p.entries > 0 then
      redis.call('HSET', state, 'last', reply[i + 1])
      redis.call('HINCRBY', state, 'bytes', p.bytes)
      redis.call('HINCRBY', state, 'appended', p.rows)
    end
    if p.origin ~= '' then
      redis.call('HSET', state, 'from:' .. p.origin, p.upto)
    end
    if push ~= '' then
      redis.call('HSET', pushes, push, digest)
      redis.call('EXPIRE', pushes, kept_seconds)
    end
  end
end
return reply
