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
           or m and what follows, a semicolon between two:
             one of the letters above
             p...  a policy (circuit_script_policy, proto/circuit_script.h) for what follows
             a...  acquire, r... report (circuit_script_token), behind a policy

The reply is an array with one element for each key, in order: an error (that circuit alone has
failed and is as it was: a key of another type, or a value larger than 64 KiB before or after the
operations, is left alone), or a string such as
"0 1700000000000 0 3 1 1690000000000 1680000000000", which says
  what was stored before: 0 a sound snapshot, 1 an object with members missing or ill-typed,
      2 no JSON object, 3 nothing
  the time of the operations; 0 if none of them needed it
  the circuit as it was read: state (0 closed, 1 open, 2 half-open), failureCount,
      successCount, lastFailureTime, lastStateChange; zeros where there was none
  with m only: the text of the member breakerd as it was read; - if there is none, or it is
      surely no sound one
Whoever asked applies its operations to that by the rules of proto/breaker.h, and so knows the
snapshot behind each of them; a reply for each would cost Redis more than the operations do.
Behind a step the string says what there is now instead, 0 and the circuit, or 3.

An error that is not about one key's type or size, met before anything is written, is the whole
call's error: nothing was done.

proto/circuit.h and proto/breaker.h have the rules of the operations, proto/circuit_json.h and
proto/breaker_member.h those of the stored value: what is said there is done here. Redis's own
time is what is dear: a plain value is read by one pattern, numbers stay text unless they change,
and replies are few. Whatever else is stored is scanned, so that members that are not ours keep
their bytes. Redis makes the functions and tables below anew for each call: there are few, and none shares a local.

A state is its digit, "0", "1" or "2", up to where it is written.
--]]

-- Reads any value: what was found ("0", "1", "2"), the five members, the others with the closing
-- brace, breakerd if it is a string without escapes, the others without it; all as text.
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
	local got, others, rest = {}, {}, {}
	local function member(name_from, name_to, from, to)
		local name = plain(name_from, name_to)
		if name == "state" then
			got.state = byte(value, from) == 34 and STATES[plain(from, to)]
		elseif name == "failureCount" or name == "successCount" or
			name == "lastFailureTime" or name == "lastStateChange" then
			got[name] = integer(from, to)
		else
			local text = "," .. sub(value, name_from, name_to - 1) .. ":" ..
				sub(value, from, to - 1)
			others[#others + 1] = text
			if name == "breakerd" then
				got.breakerd = match(sub(value, from, to - 1), '^"([^\\]*)"$')
			else
				rest[#rest + 1] = text
			end
		end
	end

	local pos = blank(1)
	pos = byte(value, pos) == 123 and object(pos, 1, member)
	if not pos or blank(pos) <= #value then
		return "2", "0", "0", "0", "0", "0", "}", nil, "}"
	end
	local sound = got.state and got.failureCount and got.successCount and
		got.lastFailureTime and got.lastStateChange
	return sound and "0" or "1", got.state or "0", got.failureCount or "0",
		got.successCount or "0", got.lastFailureTime or "0", got.lastStateChange or "0",
		table.concat(others) .. "}", got.breakerd, table.concat(rest) .. "}"
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

-- The policy machine: proto/breaker.c, proto/breaker_window.c and proto/breaker_member.c, and the
-- five where they stand among its calls. Takes what is stored, `changed` being now where that is
-- nothing, and gives the effect, what is stored then, the member's text if that is new, and
-- whether there was a reset.
local function decide(plus, ops, now_text, exists, state, failures, successes, failed, changed,
	member)
	local match, format, floor = string.match, string.format, math.floor
	local now = tonumber(now_text)
	local COUNT_MAX, INT_MAX = 999999999, 9007199254740991

	local function int(n)
		return format("%.0f", n)
	end
	local function none()
		return { found = false, state = "0", since = 0, fresh = false, openings = 0, open_ms = 0,
			run = 0, window = 0, newest = 0, slots = {}, half_open = 0, passed = 0, probes = {} }
	end

	-- Numbers of the member's text, each of at most so many digits; nil if one has more.
	local function numbers(digits, ...)
		for i = 1, select("#", ...) do
			if #select(i, ...) > digits then
				return nil
			end
		end
		return true
	end
	local function decode_window(text, pos, b)
		local window, newest
		window, newest, pos = match(text, "^ w(%d+)%.(%d+):()", pos)
		if not numbers(9, window) or not numbers(14, newest) then
			return nil
		end
		b.window, b.newest = tonumber(window), tonumber(newest)
		if b.window == 0 or b.newest > floor(INT_MAX / b.window) then
			return nil
		end
		while true do
			local calls, p = match(text, "^(%d+)()", pos)
			local fails, slow, who = "0", "0", ""
			if not calls or #b.slots == 10 or b.newest < #b.slots then
				return nil
			end
			if string.byte(text, p) == 46 then
				fails, slow, who, p = match(text, "^%.(%d+)%.(%d+)%.([%u%l%d]*)()", p)
				if not fails or #who > 32 or string.gsub(who, "%u[%l%d]", "") ~= "" then
					return nil
				end
			end
			if not numbers(9, calls, fails, slow) then
				return nil
			end
			b.slots[#b.slots + 1] = { calls = tonumber(calls), failures = tonumber(fails),
				slow = tonumber(slow), who = who }
			if string.byte(text, p) ~= 44 then
				return p
			end
			pos = p + 1
		end
	end
	local function decode_probes(text, pos, b)
		local passed, first, hex
		passed, first, hex, pos = match(text, "^ h(%d+)%.(%d+):([%da-f]*)()", pos)
		if not passed or not numbers(9, passed) or not numbers(14, first) or #hex % 12 ~= 0 or
			#hex > 1200 then
			return nil
		end
		b.passed, b.half_open, first = tonumber(passed), b.since, tonumber(first)
		for id, later in string.gmatch(hex, "(......)(......)") do
			b.probes[#b.probes + 1] = { id = id, deadline = first + tonumber(later, 16) }
		end
		return pos
	end
	local function decode_past_probes(text, pos, b)
		local since, hex
		since, hex, pos = match(text, "^ q(%d+):([%da-f]*)()", pos)
		b.half_open = tonumber(since)
		if not numbers(16, since) or b.half_open == 0 or b.half_open > INT_MAX or
			#hex % 6 ~= 0 or #hex > 600 then
			return nil
		end
		for id in string.gmatch(hex, "......") do
			b.probes[#b.probes + 1] = { id = id, deadline = 0 }
		end
		return pos
	end
	local function decode_override(text, pos, b)
		local mode, since, till, why
		mode, since, till, why, pos = match(text, "^ o([12])%.(%d+)%.(%d+):([%da-f]*)()", pos)
		if not numbers(14, since, till) or #why % 2 ~= 0 or #why > 400 then
			return nil
		end
		b.override = { mode = mode, since = tonumber(since), till = tonumber(till), why = why }
		return pos
	end
	-- The member, unpacked; nil if it is none.
	local function decode(text)
		local b = none()
		local at, since, fresh, openings, open_ms, run, pos =
			match(text, "^1 ([012]) (%d+) ([01]) (%d+) (%d+) (%d+)()")
		if not at or not numbers(16, since) or not numbers(9, openings, open_ms, run) then
			return nil
		end
		b.found, b.state, b.since, b.fresh = true, at, tonumber(since), fresh == "1"
		b.openings, b.open_ms, b.run = tonumber(openings), tonumber(open_ms), tonumber(run)
		if b.since > INT_MAX then
			return nil
		end
		if at == "0" and match(text, "^ w%d+%.%d+:", pos) then
			pos = decode_window(text, pos, b)
		end
		if pos and at == "2" then
			pos = decode_probes(text, pos, b)
		elseif pos and match(text, "^ q%d+:", pos) then
			pos = decode_past_probes(text, pos, b)
		end
		if pos and match(text, "^ o[12]%.%d+%.%d+:", pos) then
			pos = decode_override(text, pos, b)
		end
		return pos == #text + 1 and b or nil
	end

	local b = member and decode(member) or none()

	local function encode()
		local parts = { "1 ", b.state, " ", int(b.since), b.fresh and " 1 " or " 0 ",
			int(b.openings), " ", int(b.open_ms), " ", int(b.run) }
		local function put(text)
			parts[#parts + 1] = text
		end
		for i = 1, #b.slots do
			local slot = b.slots[i]
			put(i == 1 and " w" .. int(b.window) .. "." .. int(b.newest) .. ":" or ",")
			put(int(slot.calls))
			if slot.failures > 0 or slot.slow > 0 then
				put("." .. int(slot.failures) .. "." .. int(slot.slow) .. "." .. slot.who)
			end
		end
		if b.state == "2" then
			local first = b.probes[1] and b.probes[1].deadline or 0
			for _, probe in ipairs(b.probes) do
				first = math.min(first, probe.deadline)
			end
			put(" h" .. int(b.passed) .. "." .. int(first) .. ":")
			for _, probe in ipairs(b.probes) do
				put(probe.id .. format("%06x", probe.deadline - first))
			end
		elseif b.half_open > 0 then
			put(" q" .. int(b.half_open) .. ":")
			for _, probe in ipairs(b.probes) do
				put(probe.id)
			end
		end
		local o = b.override
		if o then
			put(" o" .. o.mode .. "." .. int(o.since) .. "." .. int(o.till) .. ":" .. o.why)
		end
		return table.concat(parts)
	end

	-- tidy of proto/breaker.c
	local function tidy()
		local override, found = b.override, b.found
		if override and override.till <= now then
			override, b.override = nil, nil
		end
		if exists and found and b.state == state and b.since == tonumber(changed) then
			return
		end
		b = none()
		b.found, b.override = found, found and override or nil
		b.state, b.since = state, tonumber(changed)
		b.fresh = state == "0" and
			(not exists or not found and (failures ~= "0" or successes ~= "0"))
		b.half_open = state == "2" and b.since or 0
	end

	-- proto/circuit.c
	local function move(to)
		state, changed = to, now_text
		if to == "0" then
			failures = "0"
		end
		if to ~= "1" then
			successes = "0"
		end
	end
	local function record(is_failure, count)
		if is_failure then
			failures, failed = plus(failures, 1), now_text
		else
			successes = plus(successes, count)
		end
	end

	-- The policy, in the order of circuit_script_policy.
	local consecutive_failures, failure_rate, slow, slow_rate, window, min_calls, min_reporters,
		open_time, open_growth, open_time_max, max_probes, probe_successes, probe_timeout

	local function clear_window()
		b.run, b.window, b.newest, b.slots = 0, 0, 0, {}
	end
	local function opening(openings)
		local ms = open_time
		if open_growth > 1000 then
			while openings > 0 and ms < open_time_max do
				ms, openings = ms * open_growth / 1000, openings - 1
			end
		end
		return ms >= open_time_max and open_time_max or math.ceil(ms)
	end
	local function decide_to(to)
		move(to)
		b.state, b.since, b.fresh = to, now, false
	end
	local function open(openings)
		b.openings = math.min(openings, 20000)
		b.open_ms = opening(b.openings)
		clear_window()
		decide_to("1")
	end

	-- proto/breaker_window.c
	local function add(count, more)
		return math.min(count + more, COUNT_MAX)
	end
	local function add_reporter(slot, who)
		for known in string.gmatch(slot.who, "..") do
			if known == who then
				return
			end
		end
		if #slot.who < 32 then
			slot.who = slot.who .. who
		end
	end
	local function go_to(number)
		local slots, ahead = b.slots, number - b.newest
		if #slots == 0 or ahead >= 10 or ahead <= -10 then
			b.newest, b.slots = number, { { calls = 0, failures = 0, slow = 0, who = "" } }
			return
		end
		if ahead <= 0 then
			return
		end
		for _ = 1, ahead do
			table.insert(slots, 1, { calls = 0, failures = 0, slow = 0, who = "" })
		end
		b.newest = number
		while #slots > 10 or #slots > 1 and slots[#slots].calls == 0 do
			slots[#slots] = nil
		end
	end
	local function advance()
		if #b.slots > 0 and b.window ~= window then
			local old, newest = b.slots, b.newest
			b.slots = {}
			for i = #old, 1, -1 do
				local from = old[i]
				go_to(floor(floor((newest - i + 1) * b.window / 10) * 10 / window))
				local to = b.slots[1]
				to.calls = add(to.calls, from.calls)
				to.failures = add(to.failures, from.failures)
				to.slow = add(to.slow, from.slow)
				for who in string.gmatch(from.who, "..") do
					add_reporter(to, who)
				end
			end
		end
		b.window = window
		go_to(floor(now * 10 / window))
	end
	local function opens(calls, fails, slows, reporters)
		if reporters < min_reporters then
			return false
		elseif consecutive_failures > 0 and b.run >= consecutive_failures then
			return true
		elseif calls < min_calls then
			return false
		end
		return failure_rate > 0 and fails * 100 >= failure_rate * calls or
			slow > 0 and slows * 100 >= slow_rate * calls
	end
	-- How many of the reports were counted, and whether the last of them opens.
	local function count_in_window(is_failure, is_slow, who, count)
		local slot = b.slots[1]
		slot.failures = add(slot.failures, is_failure and 1 or 0)
		slot.slow = add(slot.slow, is_slow and 1 or 0)
		if is_failure or is_slow then
			add_reporter(slot, who)
		end
		b.run = is_failure and add(b.run, 1) or 0

		local calls, fails, slows, reporters, seen = 0, 0, 0, 0, {}
		for _, s in ipairs(b.slots) do
			calls, fails, slows = calls + s.calls, fails + s.failures, slows + s.slow
			for known in string.gmatch(s.who, "..") do
				reporters = reporters + (seen[known] and 0 or 1)
				seen[known] = true
			end
		end
		local first = math.min(count, calls < min_calls and min_calls - calls or 1)
		local over = opens(calls + first, fails, slows, reporters)
		slot.calls = add(slot.calls, over and first or count)
		return over and first or count, over
	end

	local function find_probe(id)
		for i, probe in ipairs(b.probes) do
			if probe.id == id then
				return i
			end
		end
	end
	local function find_lost()
		local lost = false
		for i = b.state == "2" and #b.probes or 0, 1, -1 do
			if b.probes[i].deadline <= now then
				table.remove(b.probes, i)
				lost = true
			end
		end
		if lost then
			open(b.openings)
		end
		return lost
	end

	local function acquire(random)
		local lost = find_lost()
		if b.override and b.override.mode == "1" or state == "0" then
			return lost
		end
		if state == "1" then
			local open_ms = b.open_ms > 0 and b.open_ms or opening(0)
			if open_ms - math.max(now - tonumber(changed), 0) > 0 then
				return lost
			end
			b.open_ms = open_ms
			decide_to("2")
			b.half_open, b.passed, b.probes = now, 0, {}
		end
		if #b.probes >= max_probes or #b.probes >= 100 then
			return lost
		end
		local id = random % 16777216
		while find_probe(format("%06x", id)) do
			id = (id + 1) % 16777216
		end
		b.probes[#b.probes + 1] = { id = format("%06x", id), deadline = now + probe_timeout }
		local last = math.huge
		for _, probe in ipairs(b.probes) do
			last = math.min(last, probe.deadline + 16777215)
		end
		for _, probe in ipairs(b.probes) do
			probe.deadline = math.min(probe.deadline, last)
		end
		return true
	end

	local function counts(kind, since, id)
		if kind == "-" then
			return state == "0"
		elseif kind == "c" then
			return exists and state == "0" and tonumber(changed) == since
		elseif kind == "n" then
			return state == "0" and b.fresh
		end
		return kind == "p" and state == "2" and since == b.half_open and find_probe(id)
	end
	local function report(kind, since, id, outcome, is_slow, who, count)
		local lost = find_lost()
		local which = counts(kind, since, id)
		if not which then
			return lost
		end
		if kind == "p" then
			table.remove(b.probes, which)
		end
		if outcome == "i" then
			return kind == "p"
		end
		local is_failure = outcome == "f"
		if kind ~= "p" then
			advance()
			local counted, over = count_in_window(is_failure, is_slow, who, count)
			record(is_failure, counted)
			if over then
				local again = b.open_ms > 0 and now - tonumber(changed) < b.open_ms
				open(again and b.openings + 1 or 0)
			end
			return true
		end
		record(is_failure, 1)
		if is_failure or is_slow then
			open(b.openings + 1)
		else
			b.passed = b.passed + 1
			if b.passed >= probe_successes then
				clear_window()
				decide_to("0")
			end
		end
		return true
	end

	local effect, written, anew
	local function operate(op)
		if op == 115 or op == 102 then -- s, f
			record(op == 102, 1)
		elseif op == 100 then -- d
			exists, state, failures, successes, failed = false, "0", "0", "0", "0"
			changed, effect, written, anew, b = now_text, "DEL", nil, true, none()
			return
		else -- A to L; not g
			local from = (op - 65) % 4
			if op == 103 or from > 0 and from - 1 ~= tonumber(state) then
				return
			end
			move(floor((op - 65) / 4) .. "")
		end
		exists, effect = true, "SET"
	end

	for token in string.gmatch(ops, "[^;]+") do
		local verb = string.byte(token)
		local changes = false
		if verb == 112 then -- p
			local p = {}
			for word in string.gmatch(token, "%d+") do
				p[#p + 1] = tonumber(word)
			end
			consecutive_failures, failure_rate, slow, slow_rate, window, min_calls, min_reporters,
				open_time, open_growth, open_time_max, max_probes, probe_successes,
				probe_timeout = unpack(p)
		elseif verb == 97 then -- a
			tidy()
			changes = acquire(tonumber(match(token, "%d+")))
		elseif verb == 114 then -- r
			local kind, since, id, outcome, is_slow, who, count =
				match(token, "^r(.) (%d+) (%x+) ([sfi]) ([01]) (%w+) (%d+)$")
			tidy()
			changes = report(kind, tonumber(since), id, outcome, is_slow == "1", who,
				tonumber(count))
		else
			operate(verb)
		end
		if changes then
			exists, effect, b.found = true, "SET", true
			written = encode()
		end
	end
	return effect, exists, state, failures, successes, failed, changed, written,
		anew
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
	local member, rest = nil, "}"
	if value and value.err then -- which no string has
		failure, ops = value, ""
	elseif value and #value > MAX then
		failure, ops = { err = "TOOLARGE the stored value is larger than 64 KiB" }, ""
	elseif value then
		-- %b steps over names fast but takes any: what it found must make up the very value.
		local name
		name, failures, successes, failed, changed, others = match(value,
			'^%b{:(%b"")%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)(.*)$')
		member = others and others ~= "}" and match(others, '^,"breakerd":"([%w .,:]*)"}$')
		if failures == "" then failures = "0" end
		if successes == "" then successes = "0" end
		if failed == "" then failed = "0" end
		if changed == "" then changed = "0" end
		state = name == '"closed"' and "0" or name == '"open"' and "1" or
			name == '"half-open"' and "2"
		if state and #failures < 16 and #successes < 16 and #failed < 16 and #changed < 16 and
			value == '{"state":' .. name .. ',"failureCount":' .. failures ..
			',"successCount":' .. successes .. ',"lastFailureTime":' .. failed ..
			',"lastStateChange":' .. changed .. others and (others == "}" or member) then
			stored = "0"
		else
			stored, state, failures, successes, failed, changed, others, member, rest = scan(value)
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
	if string.byte(ops) == 109 then -- m
		local text, anew
		reply[i] = reply[i] .. " " ..
			(member and #member < 2048 and match(member, "^1 [%w .,:]*$") or "-")
		effect, exists, state, failures, successes, failed, changed, text, anew = decide(plus,
			string.sub(ops, 2), now, exists, state, failures, successes, failed, changed, member)
		if anew then
			others, rest = "}", "}"
		end
		if text then
			others = ',"breakerd":"' .. text .. '"' .. rest
		end
		ops = ""
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
