-- Renews or gives back the lease on a task, if it is still held by this token.
-- KEYS: the lease. ARGV: what the lease holds, milliseconds from now on (0: give it back). Returns 1 if it was held.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
