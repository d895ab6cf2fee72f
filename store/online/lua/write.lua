-- Writes rows of one feature view, each only if it is not older than the row that stands there.
-- KEYS: entity keys. ARGV[1]: hash field. ARGV[2]: seconds until the key expires, '' for never.
-- ARGV[2 + i]: the row for KEYS[i]. Returns how many rows were written.

local field, expiry, written = ARGV[1], ARGV[2], 0
for i, key in ipairs(KEYS) do
  local row = ARGV[2 + i]
  local stored = checked(redis.call('HGET', key, field))
  if not stored or not stands_against(stored, row) then
    -- The very same row need not be written once more, nor logged and replicated.
    if stored ~= row then
      redis.call('HSET', key, field, row)
    end
    if expiry ~= '' then
      redis.call('EXPIRE', key, expiry)
    end
    written = written + 1
  end
end
return written
