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

The reply is one flat array; for each key, in order, either an error (that circuit alone has
failed and is as it was: a key of another type is left alone) or
  stored   what was found: 0 a sound snapshot, 1 an object with members missing or
           ill-typed, 2 no JSON object, 3 nothing
and then for each of its operations five integers:
  code     three digits: 1 if `from` did not hold, else 0; the state before; the state
           after (0 closed, 1 open, 2 half-open)
  failureCount, successCount, lastFailureTime, lastStateChange
A reset answers with zeros behind its code.

An error that is not about one key's type, met before anything is written, is the whole
call's error: nothing was done.

proto/circuit.h has the rules of the operations, proto/circuit_json.h those of the stored
value: what is said there is done here. A plain value is read by one pattern; whatever
else is there is scanned, so that members that are not ours keep their bytes.
--]]

local INT_MAX, DEPTH = 9007199254740991, 512
local byte, match, pcall = string.byte, string.match, redis.pcall

-- Reads any value: what was found (0, 1, 2), the five members, and the others as text.
local function scan(value)
	local sub, concat = string.sub, table.concat

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
				return n + 0 -- -0 becomes 0
			end
		end
		return false
	end

	local STATES = { closed = 0, open = 1, ["half-open"] = 2 }
	local got, others = {}, {}
	local function member(name_from, name_to, from, to)
		local name = plain(name_from, name_to)
		if name == "state" then
			got.state = byte(value, from) == 34 and STATES[plain(from, to)] or false
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
		return 2
	end
	local sound = got.state and got.failureCount and got.successCount and
		got.lastFailureTime and got.lastStateChange
	return sound and 0 or 1, got.state or 0, got.failureCount or 0, got.successCount or 0,
		got.lastFailureTime or 0, got.lastStateChange or 0, concat(others)
end

local ttl = ARGV[1]
local now, written
local reply, n = { 0, 0, 0, 0, 0, 0 }, 0

for i = 1, #KEYS do
	local key, ops, base = KEYS[i], ARGV[i + 1], n
	local value = pcall("GET", key)
	local failure, effect
	if type(value) == "table" then
		failure = value
	else
		local stored, state, failures, successes, failed, changed, others
		if value then
			local a, b, c, d, e = match(value, '^{"state":"([%a-]+)","failureCount":(%d+),' ..
				'"successCount":(%d+),"lastFailureTime":(%d+),"lastStateChange":(%d+)}$')
			state = a == "closed" and 0 or a == "open" and 1 or a == "half-open" and 2
			if state and (b == "0" or byte(b) ~= 48) and (c == "0" or byte(c) ~= 48) and
				(d == "0" or byte(d) ~= 48) and (e == "0" or byte(e) ~= 48) then
				failures, successes, failed, changed =
					tonumber(b), tonumber(c), tonumber(d), tonumber(e)
				if failures <= INT_MAX and successes <= INT_MAX and failed <= INT_MAX and
					changed <= INT_MAX then
					stored, others = 0, ""
				end
			end
			if not stored then
				stored, state, failures, successes, failed, changed, others = scan(value)
			end
		else
			stored = 3
		end
		local exists = stored < 2
		n = n + 1
		reply[n] = stored

		for j = 1, #ops do
			local op = byte(ops, j)
			if not now and (not exists or op ~= 115 and op ~= 103 and op ~= 100) then
				local time = pcall("TIME")
				if time.err then
					failure, effect = time, nil
					break
				end
				now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
			end
			if not exists then
				state, failures, successes, failed, changed, others = 0, 0, 0, 0, now, ""
			end
			local code = state * 10
			if op == 102 then
				failures = failures < INT_MAX and failures + 1 or INT_MAX
				failed = now
				exists, effect = true, "SET"
			elseif op == 115 then
				successes = successes < INT_MAX and successes + 1 or INT_MAX
				exists, effect = true, "SET"
			elseif op == 100 then
				state, failures, successes, failed, changed = 0, 0, 0, 0, 0
				exists, effect = false, "DEL"
			elseif op ~= 103 then
				local from = (op - 65) % 4 - 1
				if from < 0 or from == state then
					state, changed = (op - 66 - from) / 4, now
					if state == 0 then
						failures, successes = 0, 0
					elseif state == 2 then
						successes = 0
					end
					exists, effect = true, "SET"
				else
					code = code + 100
				end
			end
			reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] =
				code + state, failures, successes, failed, changed
			n = n + 5
		end

		local result
		if effect == "SET" then
			result = pcall("SET", key, string.format('{"state":"%s","failureCount":%.0f,' ..
				'"successCount":%.0f,"lastFailureTime":%.0f,"lastStateChange":%.0f%s}',
				state == 0 and "closed" or state == 1 and "open" or "half-open",
				failures, successes, failed, changed, others), "EX", ttl)
		elseif effect and value then
			result = pcall("DEL", key)
		end
		if type(result) == "table" and result.err then
			failure = result
		elseif result then
			written = true
		end
	end
	if failure then
		-- Redis 6.2 puts the place in the script before its own words.
		local words = string.gsub(failure.err, "^@?user_script: ?%d+: %-?", "")
		words = match(words, "^%-?([^\r\n]*)")
		if not written and match(words, "^(%S*)") ~= "WRONGTYPE" then
			return { err = words }
		end
		for j = base + 2, #reply do
			reply[j] = nil
		end
		n = base + 1
		reply[n] = { err = words }
	end
end
return reply
