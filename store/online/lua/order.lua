-- Which of two rows stands. This text goes before each script that needs it.
-- The header is that of store/kernel/codec.py. Numbers stay below 2^53, where Lua's are exact, because
-- every 64-bit time is taken apart into two halves; strings are not compared, as that follows the locale.

local VERSION, HAS_CREATED, HAS_NANOSECONDS, PUSHED = 2, 1, 2, 4
local EVENT_TIME, CREATED_TIME = 4, 12

local function has(row, flag)
  return string.byte(row, 1) % (2 * flag) >= flag
end

local function order_of(row)
  local event_high, event_low = struct.unpack('>I4I4', row, EVENT_TIME)
  local position, created_high, created_low, event_ns, created_ns = CREATED_TIME, -1, -1, 0, 0
  if has(row, HAS_CREATED) then
    created_high, created_low = struct.unpack('>I4I4', row, position)
    position = position + 8
  end
  if has(row, HAS_NANOSECONDS) then
    event_ns, created_ns = struct.unpack('>I2I2', row, position)
  end
  return { event_high, event_low, event_ns, created_high, created_low, created_ns }, has(row, PUSHED)
end

local function stands_against(stored, incoming)
  -- Mostly the event times differ, and then nothing else has to be looked at.
  local stored_high, stored_low = struct.unpack('>I4I4', stored, EVENT_TIME)
  local incoming_high, incoming_low = struct.unpack('>I4I4', incoming, EVENT_TIME)
  if stored_high ~= incoming_high then
    return stored_high > incoming_high
  elseif stored_low ~= incoming_low then
    return stored_low > incoming_low
  end
  local stored_order, stored_pushed = order_of(stored)
  local incoming_order, incoming_pushed = order_of(incoming)
  for i = 1, 6 do
    if stored_order[i] ~= incoming_order[i] then
      return stored_order[i] > incoming_order[i]
    end
  end
  return stored_pushed and not incoming_pushed
end

local function checked(row)
  if row then
    local version = math.floor(string.byte(row, 1) / 16)
    if version ~= VERSION then
      error('stored row has format version ' .. version .. ', this script writes ' .. VERSION)
    end
  end
  return row
end
