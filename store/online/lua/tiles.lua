-- Changes the stream tiles of entity keys, each only if what was applied to it is still what the change expects.
-- KEYS: the keys of the tiles. ARGV[1]: milliseconds until they expire. Then for each key: what its APPLIED field
-- holds ('' for an absent one), '1' if the fields are all that shall remain, how many fields there are, and the
-- fields: name and value of each, APPLIED among them. Returns for each key 1 if it was changed, 0 if not.

local FIELDS_AT_ONCE = 1000
local changed, at = {}, 2
for i, key in ipairs(KEYS) do
  local expected, is_whole, last = ARGV[at], ARGV[at + 1], at + 2 + 2 * tonumber(ARGV[at + 2])
  if (redis.call('HGET', key, '') or '') == expected then
    if is_whole == '1' then
      redis.call('DEL', key)
    end
    for first = at + 3, last, 2 * FIELDS_AT_ONCE do
      redis.call('HSET', key, unpack(ARGV, first, math.min(first + 2 * FIELDS_AT_ONCE - 1, last)))
    end
    redis.call('PEXPIRE', key, ARGV[1])
    changed[i] = 1
  else
    changed[i] = 0
  end
  at = last + 1
end
return changed
