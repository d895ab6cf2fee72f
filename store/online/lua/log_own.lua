-- Takes the lease on a task, if nobody holds it.
-- KEYS: the lease, the state. ARGV: the worker's name, milliseconds of the lease. Returns the worker's token, by which
-- it is told from all owners before it; '' if somebody holds the lease.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return ''
end
local token = string.format('%.0f:%s', redis.call('HINCRBY', KEYS[2], 'tokens', 1), ARGV[1])
redis.call('HSET', KEYS[2], 'token', token)
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token
