-- Replaces what is known of a view, if it is still what it was when it was read.
-- KEYS[1]: the views hash. ARGV: the generation field, its content then and now, the state field, its content
-- then and now; '' stands for an absent field. Returns 1 if it was replaced, 0 if somebody else was faster.

local function holds(field, content)
  return (redis.call('HGET', KEYS[1], field) or '') == content
end

if not holds(ARGV[1], ARGV[2]) or not holds(ARGV[4], ARGV[5]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[6])
return 1
