-- Appends a line mark to one partition of the event log under a given id.
-- KEYS: the log, its state. ARGV: the id, the content of the entry. Returns the last id of the log: what was given if
-- the mark stands, a higher or equal one from before if it does not.

local last = tonumber(redis.call('HGET', KEYS[2], 'last') or 0)
if last >= tonumber(ARGV[1]) then
  return string.format('%.0f', last + 1)
end
redis.call('XADD', KEYS[1], ARGV[1] .. '-0', 'e', ARGV[2])
redis.call('HSET', KEYS[2], 'last', ARGV[1])
redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[2])
return ARGV[1]
