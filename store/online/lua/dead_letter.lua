-- Keeps a row that does not fit, once for each place that it came from.
-- KEYS: the stream of letters, the hash of their states. ARGV: letters kept at most; the place; then the fields of the
-- letter. Returns 1 if it was kept, 0 if it was known already. Where there are too many, the oldest goes, and is counted.

if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then
  return 0
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', KEYS[1], oldest[1])
  redis.call('HDEL', KEYS[2], oldest[2][2])
  redis.call('HINCRBY', KEYS[2], ' dropped', 1)
end
local id = redis.call('HINCRBY', KEYS[2], ' count', 1)
redis.call('XADD', KEYS[1], id .. '-0', 'from', ARGV[2], unpack(ARGV, 3))
redis.call('HSET', KEYS[2], ARGV[2], 'waiting')
return 1
