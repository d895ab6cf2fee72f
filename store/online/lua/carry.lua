-- Carries rows that came by push from one generation of a view to the next, where they are not older.
-- KEYS: entity keys. ARGV[1]: the field of the generation that is read. ARGV[2]: that of the one being built.
-- Returns how many rows were carried, and the newest event time among them in two halves, as the header has it.

local carried, newest_high, newest_low = 0, 0, 0
for _, key in ipairs(KEYS) do
  local row = checked(redis.call('HGET', key, ARGV[1]))
  if row and has(row, PUSHED) then
    local stored = checked(redis.call('HGET', key, ARGV[2]))
    if not stored or not stands_against(stored, row) then
      redis.call('HSET', key, ARGV[2], row)
      carried = carried + 1
      local high, low = struct.unpack('>I4I4', row, EVENT_TIME)
      if high > newest_high or (high == newest_high and low > newest_low) then
        newest_high, newest_low = high, low
      end
    end
  end
end
return { carried, newest_high, newest_low }
