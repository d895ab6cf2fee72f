-- The baseline of the stream: events applied to tiles of three windows in plain doubles, and nothing else.
-- KEYS: a hash for each event. ARGV: for each event its time in microseconds and its value.
local HOPS = { 300000000, 3600000000, 86400000000 }
for i, key in ipairs(KEYS) do
  local at, value = tonumber(ARGV[2 * i - 1]), ARGV[2 * i]
  local number = tonumber(value)
  for level, hop in ipairs(HOPS) do
    local tile = level .. ':' .. string.format('%d', math.floor(at / hop))
    redis.call('HINCRBY', key, tile .. 'c', 1)
    redis.call('HINCRBYFLOAT', key, tile .. 's', value)
    local low, high = redis.call('HGET', key, tile .. 'l'), redis.call('HGET', key, tile .. 'h')
    if not low or number < tonumber(low) then
      redis.call('HSET', key, tile .. 'l', value)
    end
    if not high or number > tonumber(high) then
      redis.call('HSET', key, tile .. 'h', value)
    end
  end
end
return #KEYS
