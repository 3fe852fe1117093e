--[[
The operations as Redis runs them: several circuits, several operations on each, one call.

EVALSHA sha n KEYS[1] .. KEYS[n] ttl ops[1] .. ops[n]

  KEYS[i]  the whole Redis key of a circuit; each one once
  ttl      seconds, given to every circuit that is written
  ops[i]   what to do to KEYS[i], in order, a letter an operation, at least one:
             g  getState     s  recordSuccess     f  recordFailure     d  reset
             A B C D         transition to closed    | from any state, and only from
             E F G H         transition to open      | closed, open, half-open: the first
             I J K L         transition to half-open | letter of a row, the second, ...
           or one step of circuit_fold_encode (proto/circuit_fold.h), which begins with w

The reply is an array with one element for each key, in order: an error (that circuit alone has
failed and is as it was: a key of another type is left alone), or a string such as
"0 1700000000000 0 3 1 1690000000000 1680000000000", which says
  what was stored before: 0 a sound snapshot, 1 an object with members missing or ill-typed,
      2 no JSON object, 3 nothing
  the time of the operations; 0 if none of them needed it
  the circuit as it was read: state (0 closed, 1 open, 2 half-open), failureCount,
      successCount, lastFailureTime, lastStateChange; zeros where there was none
Whoever asked applies its operations to that by the rules of proto/circuit.c, and so knows the
snapshot behind each of them; a reply for each would cost Redis more than the operations do.
Behind a step the string says what there is now instead, 0 and the circuit, or 3.

An error that is not about one key's type, met before anything is written, is the whole
call's error: nothing was done.

proto/circuit.h has the rules of the operations, proto/circuit_json.h those of the stored
value: what is said there is done here. Redis's own time is what is dear: a plain value is
read by one pattern, numbers stay text unless they change, and replies are few. Whatever else
is stored is scanned, so that members that are not ours keep their bytes.
--]]

local INT_MAX, DEPTH = 9007199254740991, 512
local DIGITS = { closed = "0", open = "1", ["half-open"] = "2" }
local FROM = { "closed", "open", "half-open" }
local byte, find, format, match = string.byte, string.find, string.format, string.match
local pcall = redis.pcall

-- Reads any value: what was found ("0", "1", "2"), the five members, the others; all as text.
local function scan(value)
	local sub = string.sub

	-- Each of these takes where a token begins and gives where it ends, or nil.
	local function blank(pos)
		return match(value, "^[ \t\n\r]*()", pos)
	end
	local function text(pos)
		pos = pos + 1
		while true do
			pos = match(value, '^[^"\\%z\1-\31]*()', pos)
			local c = byte(value, pos)
			if c == 34 then
				return pos + 1
			elseif c ~= 92 then
				return nil
			end
			pos = match(value, '^\\["\\/bfnrt]()', pos) or match(value, "^\\u%x%x%x%x()", pos)
			if not pos then
				return nil
			end
		end
	end
	local function number(pos)
		pos = match(value, "^%-?0()", pos) or match(value, "^%-?[1-9]%d*()", pos)
		pos = pos and (match(value, "^%.%d+()", pos) or pos)
		return pos and (match(value, "^[eE][+-]?%d+()", pos) or pos)
	end
	local skip
	local function array(pos, depth)
		pos = blank(pos + 1)
		if byte(value, pos) == 93 then
			return pos + 1
		end
		while true do
			pos = skip(pos, depth)
			pos = pos and blank(pos)
			local c = pos and byte(value, pos)
			if c == 93 then
				return pos + 1
			elseif c ~= 44 then
				return nil
			end
			pos = blank(pos + 1)
		end
	end
	-- `member`, if given, is told where each name and value begin and end.
	local function object(pos, depth, member)
		pos = blank(pos + 1)
		if byte(value, pos) == 125 then
			return pos + 1
		end
		while byte(value, pos) == 34 do
			local name_end = text(pos)
			local from = name_end and match(value, "^[ \t\n\r]*:[ \t\n\r]*()", name_end)
			local to = from and skip(from, depth)
			if not to then
				return nil
			end
			if member then
				member(pos, name_end, from, to)
			end
			pos = blank(to)
			local c = byte(value, pos)
			if c == 125 then
				return pos + 1
			elseif c ~= 44 then
				return nil
			end
			pos = blank(pos + 1)
		end
		return nil
	end
	function skip(pos, depth)
		local c = byte(value, pos)
		if c == 34 then
			return text(pos)
		elseif c == 123 then
			return depth < DEPTH and object(pos, depth + 1) or nil
		elseif c == 91 then
			return depth < DEPTH and array(pos, depth + 1) or nil
		end
		return number(pos) or match(value, "^true()", pos) or match(value, "^false()", pos) or
			match(value, "^null()", pos)
	end

	-- What a string without its quotes says, where that is ASCII: all our names are.
	local function plain(from, to)
		local s = sub(value, from + 1, to - 2)
		if match(s, "\\") then
			s = string.gsub(s, "\\u(%x%x%x%x)", function(hex)
				local code = tonumber(hex, 16)
				return code < 128 and code ~= 92 and string.char(code) or "?"
			end)
		end
		return s
	end
	local function integer(from, to)
		if match(value, "^[-%d]", from) then
			local n = tonumber(sub(value, from, to - 1))
			if n >= 0 and n <= INT_MAX and n % 1 == 0 then
				return format("%.0f", n + 0) -- -0 becomes 0
			end
		end
		return false
	end

	local STATES = { closed = "closed", open = "open", ["half-open"] = "half-open" }
	local got, others = {}, {}
	local function member(name_from, name_to, from, to)
		local name = plain(name_from, name_to)
		if name == "state" then
			got.state = byte(value, from) == 34 and STATES[plain(from, to)]
		elseif name == "failureCount" or name == "successCount" or
			name == "lastFailureTime" or name == "lastStateChange" then
			got[name] = integer(from, to)
		else
			others[#others + 1] = "," .. sub(value, name_from, name_to - 1) .. ":" ..
				sub(value, from, to - 1)
		end
	end

	local pos = blank(1)
	pos = byte(value, pos) == 123 and object(pos, 1, member)
	if not pos or blank(pos) <= #value then
		return "2"
	end
	local sound = got.state and got.failureCount and got.successCount and
		got.lastFailureTime and got.lastStateChange
	return sound and "0" or "1", got.state or "closed", got.failureCount or "0",
		got.successCount or "0", got.lastFailureTime or "0", got.lastStateChange or "0",
		table.concat(others)
end

-- A counter, some up. %d is the faster, but a long has 32 bits on some servers.
local function plus(count, more)
	local n = tonumber(count) + more
	n = n < INT_MAX and n or INT_MAX
	return format(n < 1000000000 and "%d" or "%.0f", n)
end

-- circuit_fold_apply of proto/circuit_fold.c. Takes and gives what is stored; `last` is when
-- that was written. `effect` is "SET", "DEL" or nil.
local function fold(words, last, exists, state, failures, successes, failed, changed)
	local more_failures, more_successes, zero_failures, zero_successes, writes, to, change,
		failure, reset = match(words,
		"^w (%d+) (%d+) ([01]) ([01]) ([01]) ([0-3]) (%d+) (%d+) (%d+)$")
	local effect
	reset, change, failure = tonumber(reset), tonumber(change), tonumber(failure)
	if reset > 0 and exists and tonumber(failed) <= reset and tonumber(changed) <= reset and
		last <= reset then
		exists, effect = false, "DEL"
	end
	if writes == "0" then
		return effect, exists, state, failures, successes, failed, changed
	end
	if not exists then
		state, failures, successes, failed, changed = "closed", "0", "0", "0", "-1"
		if to == "3" then
			changed = format("%.0f", change)
		end
	end
	failures = plus(zero_failures == "1" and "0" or failures, more_failures)
	successes = plus(zero_successes == "1" and "0" or successes, more_successes)
	if failure > tonumber(failed) then
		failed = format("%.0f", failure)
	end
	if to ~= "3" and change > tonumber(changed) then
		state = to == "0" and "closed" or to == "1" and "open" or "half-open"
		changed = format("%.0f", change)
	end
	return "SET", true, state, failures, successes, failed, changed, not exists
end

-- When a key was last written, in milliseconds, if it then got the time to live that we give.
local function last_written(key, ttl)
	local left, time = pcall("PTTL", key), pcall("TIME")
	if type(left) ~= "number" or left < 0 or time.err then
		return 0
	end
	return time[1] * 1000 + (time[2] - time[2] % 1000) / 1000 - (ttl * 1000 - left)
end

local now, written
local reply = {}

for i = 1, #KEYS do
	local key, ops = KEYS[i], ARGV[i + 1]
	local value = pcall("GET", key)
	local failure, effect
	local stored, state, failures, successes, failed, changed, others = "3"
	if type(value) == "table" then
		failure, ops = value, ""
	elseif value then
		state, failures, successes, failed, changed = match(value,
			'^{"state":"([%a-]+)","failureCount":(%d+),"successCount":(%d+),' ..
			'"lastFailureTime":(%d+),"lastStateChange":(%d+)}$')
		if (state == "closed" or state == "open" or state == "half-open") and
			#failures < 16 and #successes < 16 and #failed < 16 and #changed < 16 and
			(failures == "0" or byte(failures) ~= 48) and
			(successes == "0" or byte(successes) ~= 48) and
			(failed == "0" or byte(failed) ~= 48) and
			(changed == "0" or byte(changed) ~= 48) then
			stored, others = "0", ""
		else
			stored, state, failures, successes, failed, changed, others = scan(value)
		end
	end

	local exists = stored == "0" or stored == "1"
	if byte(ops) == 119 then -- w
		local afresh
		effect, exists, state, failures, successes, failed, changed, afresh = fold(ops,
			exists and last_written(key, ARGV[1]) or 0, exists, state, failures, successes,
			failed, changed)
		if afresh then
			others = ""
		end
		stored, ops = exists and "0" or "3", ""
	end
	local found = exists and DIGITS[state] .. " " .. failures .. " " .. successes .. " " ..
		failed .. " " .. changed or "0 0 0 0 0"

	local j, last = 1, #ops
	while j <= last do
		local op, count = byte(ops, j), 1
		if not now and (not exists or op ~= 115 and op ~= 103 and op ~= 100) then
			local time = pcall("TIME")
			if time.err then
				failure, effect = time, nil
				break
			end
			now = time[1] .. format("%03d", (time[2] - time[2] % 1000) / 1000)
		end
		if not exists then
			state, failures, successes, failed, changed, others = "closed", "0", "0", "0", now, ""
		end
		if op == 102 then -- f, and as many more as follow
			count = j < last and (find(ops, "[^f]", j) or last + 1) - j or 1
			failures, failed = plus(failures, count), now
			exists, effect = true, "SET"
		elseif op == 115 then -- s
			count = j < last and (find(ops, "[^s]", j) or last + 1) - j or 1
			successes = plus(successes, count)
			exists, effect = true, "SET"
		elseif op == 100 then -- d
			exists, effect = false, "DEL"
		elseif op ~= 103 then -- A to L
			local from = (op - 65) % 4
			if from == 0 or FROM[from] == state then
				changed = now
				if op < 69 then
					state, failures, successes = "closed", "0", "0"
				elseif op < 73 then
					state = "open"
				else
					state, successes = "half-open", "0"
				end
				exists, effect = true, "SET"
			end
		end
		j = j + count
	end

	local result
	if effect == "SET" then
		result = pcall("SET", key, '{"state":"' .. state .. '","failureCount":' .. failures ..
			',"successCount":' .. successes .. ',"lastFailureTime":' .. failed ..
			',"lastStateChange":' .. changed .. others .. "}", "EX", ARGV[1])
	elseif effect and value then
		result = pcall("DEL", key)
	end
	if type(result) == "table" and result.err then
		failure = result
	elseif result then
		written = true
	end
	if failure then
		-- Redis 6.2 puts the place in the script before its own words.
		local words = string.gsub(failure.err, "^@?user_script: ?%d+: ", "")
		words = match(words, "^%-?([^\r\n]*)")
		if not written and match(words, "^%S*") ~= "WRONGTYPE" then
			return { err = words }
		end
		reply[i] = { err = words }
	else
		reply[i] = stored .. " " .. (now or "0") .. " " .. found
	end
end
return reply
