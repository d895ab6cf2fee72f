-- Changes the state of a dead letter, if it is what it was when it was read.
-- KEYS: the stream of letters, the hash of their states. ARGV: the place that the letter came from, its state then and
-- now ('' now: the letter goes), its id. Returns 1 if it was changed.

if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('XDEL', KEYS[1], ARGV[4])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
return 1
