-- Records how far a partition's worker has come, and takes entries that are done out of the log.
-- KEYS: the log, the state. ARGV: the worker's token; the id up to which the log is trimmed ('' for not at all); pairs of
-- a field of the state and what it is set to. Returns 1, or 0 if another worker has taken over: nothing was changed then.

if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
if ARGV[2] ~= '' then
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', tonumber(ARGV[2]) + 1))
end
return 1
