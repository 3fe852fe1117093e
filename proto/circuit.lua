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
failed and is as it was: a key of another type, or a value larger than 64 KiB before or after the
operations, is left alone), or a string such as
"0 1700000000000 0 3 1 1690000000000 1680000000000", which says
  what was stored before: 0 a sound snapshot, 1 an object with members missing or ill-typed,
      2 no JSON object, 3 nothing
  the time of the operations; 0 if none of them needed it
  the circuit as it was read: state (0 closed, 1 open, 2 half-open), failureCount,
      successCount, lastFailureTime, lastStateChange; zeros where there was none
Whoever asked applies its operations to that by the rules of proto/circuit.c, and so knows the
snapshot behind each of them; a reply for each would cost Redis more than the operations do.
Behind a step the string says what there is now instead, 0 and the circuit, or 3.

An error that is not about one key's type or size, met before anything is written, is the whole
call's error: nothing was done.

proto/circuit.h has the rules of the operations, proto/circuit_json.h those of the stored
value: what is said there is done here. Redis's own time is what is dear: a plain value is
read by one pattern, numbers stay text unless they change, and replies are few. Whatever else
is stored is scanned, so that members that are not ours keep their bytes. Redis makes the
functions and tables below anew for each call: there are few, and none shares a local.

A state is its digit, "0", "1" or "2", up to where it is written.
--]]

-- Reads any value: what was found ("0", "1", "2"), the five members, the others with the closing
-- brace; all as text.
local function scan(value)
	local INT_MAX, DEPTH = 9007199254740991, 512
	local byte, match, sub = string.byte, string.match, string.sub

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
				return string.format("%.0f", n + 0) -- -0 becomes 0
			end
		end
		return false
	end

	local STATES = { closed = "0", open = "1", ["half-open"] = "2" }
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
		return "2", "0", "0", "0", "0", "0", "}"
	end
	local sound = got.state and got.failureCount and got.successCount and
		got.lastFailureTime and got.lastStateChange
	return sound and "0" or "1", got.state or "0", got.failureCount or "0",
		got.successCount or "0", got.lastFailureTime or "0", got.lastStateChange or "0",
		table.concat(others) .. "}"
end

-- A counter, some up. %d is the faster, but a long has 32 bits on some servers.
local function plus(count, more)
	local n = count + more
	n = n < 9007199254740991 and n or 9007199254740991
	return string.format(n < 1000000000 and "%d" or "%.0f", n)
end

-- circuit_fold_apply of proto/circuit_fold.c. Takes and gives what is stored, and then whether it
-- has begun anew. `effect` is "SET", "DEL" or nil.
local function fold(plus, words, key, ttl, exists, state, failures, successes, failed, changed)
	local format = string.format

	-- When the key was last written, in milliseconds, if it then got the time to live that we give.
	local function last_written()
		local left, time = redis.pcall("PTTL", key), redis.pcall("TIME")
		if type(left) ~= "number" or time.err then
			return math.huge -- nobody may tell us: as if just now, which removes nothing
		elseif left < 0 then
			return 0
		end
		return time[1] * 1000 + (time[2] - time[2] % 1000) / 1000 - (ttl * 1000 - left)
	end

	local more_failures, more_successes, zero_failures, zero_successes, writes, to, change,
		failure, reset = string.match(words,
		"^w (%d+) (%d+) ([01]) ([01]) ([01]) ([0-3]) (%d+) (%d+) (%d+)$")
	local effect
	reset, change, failure = tonumber(reset), tonumber(change), tonumber(failure)
	if reset > 0 and exists and tonumber(failed) <= reset and tonumber(changed) <= reset and
		last_written() <= reset then
		exists, effect = false, "DEL"
	end
	if writes == "0" then
		return effect, exists, state, failures, successes, failed, changed
	end
	if not exists then
		state, failures, successes, failed, changed = "0", "0", "0", "0", "-1"
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
		state, changed = to, format("%.0f", change)
	end
	return "SET", true, state, failures, successes, failed, changed, not exists
end

local match, pcall = string.match, redis.pcall
local KEYS, ARGV = KEYS, ARGV
-- The largest value that is read or written. A larger one would hold up Redis.
local MAX = 65536
local now, written
local reply = {}

for i = 1, #KEYS do
	local key, ops = KEYS[i], ARGV[i + 1]
	-- One byte more than MAX, if there is one, and never the whole of a large value.
	local value = pcall("GETRANGE", key, "0", "65536")
	if value == "" then
		value = pcall("GET", key) -- false if there is nothing
	end
	local failure, effect
	local stored, state, failures, successes, failed, changed, others =
		"3", "0", "0", "0", "0", "0", "}"
	if value and value.err then -- which no string has
		failure, ops = value, ""
	elseif value and #value > MAX then
		failure, ops = { err = "TOOLARGE the stored value is larger than 64 KiB" }, ""
	elseif value then
		-- %b steps over names fast but takes any: what it found must make up the very value.
		local name
		name, failures, successes, failed, changed = match(value,
			'^%b{:(%b"")%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)}$')
		if failures == "" then failures = "0" end
		if successes == "" then successes = "0" end
		if failed == "" then failed = "0" end
		if changed == "" then changed = "0" end
		state = name == '"closed"' and "0" or name == '"open"' and "1" or
			name == '"half-open"' and "2"
		if state and #failures < 16 and #successes < 16 and #failed < 16 and #changed < 16 and
			value == '{"state":' .. name .. ',"failureCount":' .. failures ..
			',"successCount":' .. successes .. ',"lastFailureTime":' .. failed ..
			',"lastStateChange":' .. changed .. "}" then
			stored = "0"
		else
			stored, state, failures, successes, failed, changed, others = scan(value)
		end
	end

	local exists = stored == "0" or stored == "1"
	local recorded = ops == "f" or ops == "s" -- once, as mostly
	if not recorded and string.byte(ops) == 119 then -- w
		local afresh
		effect, exists, state, failures, successes, failed, changed, afresh = fold(plus, ops, key,
			ARGV[1], exists, state, failures, successes, failed, changed)
		if afresh then
			others = "}"
		end
		if not exists then
			state, failures, successes, failed, changed = "0", "0", "0", "0", "0"
		end
		stored, ops = exists and "0" or "3", ""
	end

	if not now and ops ~= "" and (not exists or ops == "f" or
		not recorded and (match(ops, "[^gsd]") or match(ops, "d."))) then
		local time = pcall("TIME")
		if time.err then
			failure, ops = time, ""
		else
			now = time[1] .. string.sub("00000" .. time[2], -6, -4)
		end
	end
	reply[i] = stored .. " " .. (now or "0") .. " " .. state .. " " .. failures .. " " ..
		successes .. " " .. failed .. " " .. changed

	if not exists then
		changed = now
	end
	local more_failures, more_successes = 0, 0
	local j, last = 1, #ops
	if ops == "f" then
		failed, more_failures, effect, j = now, 1, "SET", 2
	elseif ops == "s" then
		more_successes, effect, j = 1, "SET", 2
	end
	while j <= last do
		local behind_f, behind_s = match(ops, "^f*()s*()", j)
		if behind_s > j then
			more_failures = more_failures + behind_f - j
			more_successes = more_successes + behind_s - behind_f
			if behind_f > j then
				failed = now
			end
			effect, j = "SET", behind_s
		else
			local op = string.byte(ops, j)
			if op == 100 then -- d
				state, failures, successes, failed, changed, others = "0", "0", "0", "0", now, "}"
				more_failures, more_successes = 0, 0
				effect = "DEL"
			elseif op ~= 103 then -- A to L, not g
				local from = (op - 65) % 4
				if from == 0 or from - 1 == tonumber(state) then
					changed, effect = now, "SET"
					if op < 69 then
						state, failures, successes = "0", "0", "0"
						more_failures, more_successes = 0, 0
					elseif op < 73 then
						state = "1"
					else
						state, successes, more_successes = "2", "0", 0
					end
				end
			end
			j = j + 1
		end
	end
	if more_failures > 0 then
		failures = plus(failures, more_failures)
	end
	if more_successes > 0 then
		successes = plus(successes, more_successes)
	end

	local result
	if effect == "SET" then
		local name = state == "0" and '"closed"' or state == "1" and '"open"' or '"half-open"'
		local after = '{"state":' .. name .. ',"failureCount":' .. failures ..
			',"successCount":' .. successes .. ',"lastFailureTime":' .. failed ..
			',"lastStateChange":' .. changed .. others
		if #after > MAX then
			failure = { err = "TOOLARGE the value would become larger than 64 KiB" }
		else
			result = pcall("SET", key, after, "EX", ARGV[1])
			failure = result.err and result
		end
	elseif effect and value then
		result = pcall("DEL", key)
		failure = type(result) == "table" and result
	end
	if failure then
		-- Redis 6.2 puts the place in the script before its own words.
		local words = string.gsub(failure.err, "^@?user_script: ?%d+: ", "")
		words = match(words, "^%-?([^\r\n]*)")
		local code = match(words, "^%S*")
		if not written and code ~= "WRONGTYPE" and code ~= "TOOLARGE" then
			return { err = words }
		end
		reply[i] = { err = words }
	elseif result then
		written = true
	end
end
return reply
