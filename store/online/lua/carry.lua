-- Carries rows that came by push from one generation of a view to the next, where they are not older.
-- KEYS: entity keys. ARGV[1]: the field of the generation that is read. ARGV[2]: that of the one being built.
-- Returns how many rows were carried.

local carried = 0
for _, key in ipairs(KEYS) do
  local row = checked(redis.call('HGET', key, ARGV[1]))
  if row and has(row, PUSHED) then
    local stored = checked(redis.call('HGET', key, ARGV[2]))
    if not stored or not stands_against(stored, row) then
      redis.call('HSET', key, ARGV[2], row)
      carried = carried + 1
    end
  end
end
return carried
