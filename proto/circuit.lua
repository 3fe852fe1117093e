--[[
The operations as Redis runs them: several circuits, several operations on each, one call.

EVALSHA sha n KEYS[1] .. KEYS[n] ttl ops[1] .. ops[n] "DB CHANNEL"

  KEYS[i]  the whole Redis key of a circuit; each one once
  ttl      milliseconds, given to every circuit that is written
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
             o...  an override, x its end (circuit_script_token)

The reply is an array with one element for each key, in order: an error (that circuit alone has
failed and is as it was: a key of another type, or a value larger than 64 KiB before or after the
operations, is left alone), or a string such as
"0 1700000000000 0 3 1 1690000000000 1680000000000", which says
  what was stored before: 0 a sound snapshot, 1 an object with members missing or ill-typed,
      2 no JSON object, 3 nothing
  the time of the operations; 0 if none of them needed it
  the circuit as it was read: state (0 closed, 1 open, 2 half-open), failureCount,
      successCount, lastFailureTime, lastStateChange; zeros where there was none
  the text of the member breakerd as it was read, if there is one that may be sound; with m - if
      there is none
Each change is published if "DB CHANNEL" is given, when it has been written: one message for a key,
a line feed between its three parts (circuit_script_read_message):
  "1 DB BY WAS STATE failureCount successCount lastFailureTime lastStateChange": BY is the letter of what
      led to the last change (t for A to L); WAS and STATE are digits, 3 for a circuit that is not there
  the text of the member breakerd, - for none
  the key
A change is a transition (into the state that it has, too), a reset of what was there, an override set or
ended. A server that forbids PUBLISH loses that alone.

Whoever asked applies its operations to that by the rules of proto/breaker.h, and so knows the
snapshot behind each of them; a reply for each would cost Redis more than the operations do.
Behind a step the string says what there is now instead, 0, the circuit and its member, or 3.

An error that is not about one key's type or size, met before anything is written, is the whole
call's error: nothing was done. An error of Lua's own, which names user_script, says nothing of that.

proto/circuit.h and proto/breaker.h have the rules of the operations, proto/circuit_json.h and
proto/breaker_member.h those of the stored value: what is said there is done here. Redis's own
time is what is dear: a plain value is read by one pattern, numbers stay text unless they change,
and replies are few. Whatever else is stored is scanned, so that members that are not ours keep
their bytes. Redis makes the functions and tables below anew for each call: there are few, and none shares a local.

A state is its digit, "0", "1" or "2", up to where it is written.
--]]

local match, byte, format, pcall = string.match, string.byte, string.format, redis.pcall
local KEYS, ARGV = KEYS, ARGV
-- The time, once it is needed; true once a key was written; the keys left to later passes, with their
-- values; true if there are reports among them.
local now, written, left, values, reports
local reply = {}

-- First pass: records alone, on a value with our five members only. Most writes are such, so they
-- are done before any function is made.
for i = 1, #KEYS do
	local key, ops = KEYS[i], ARGV[i + 1]
	-- One byte more than MAX (below), if there is one, and never the whole of a large value.
	local value = pcall("GETRANGE", key, "0", "65536")
	local name, failures, successes, failed, changed
	local op = byte(ops)
	if (op == 102 or op == 115) and not value.err then -- f, s; no string has err
		name, failures, successes, failed, changed =
			match(value, '^%b{:"([%l-]+)"%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)}$')
	end
	local state = name == "closed" and "0" or name == "open" and "1" or name == "half-open" and "2"
	local more -- failures; the others are successes
	if state then
		if failures == "" then failures = "0" end
		if successes == "" then successes = "0" end
		if failed == "" then failed = "0" end
		if changed == "" then changed = "0" end
		more = ops == "f" and 1 or ops == "s" and 0
		if not more then
			local behind_f, behind_s = match(ops, "^f*()s*()")
			more = behind_f - 1
			if behind_s <= #ops then
				more = match(ops, "^[fs]*$", behind_s) and select(2, string.gsub(ops, "f", ""))
			end
		end
	end
	-- %b steps over names fast but takes any. So what was found must make up the very value: then the
	-- names are ours, and no number begins with a zero that should not be there.
	if more and #failures < 10 and #successes < 10 and #failed < 16 and #changed < 16 and
		value == '{"state":"' .. name .. '","failureCount":' .. failures .. ',"successCount":' ..
		successes .. ',"lastFailureTime":' .. failed .. ',"lastStateChange":' .. changed .. "}" then
		if more > 0 and not now then
			-- As read_time (below).
			local time = pcall("TIME")
			now = not time.err and time[1] .. string.sub("00000" .. time[2], -6, -4) or nil
		end
		if now or more == 0 then
			local after = '{"state":"' .. name .. '","failureCount":' ..
				(more > 0 and format("%d", failures + more) or failures) .. ',"successCount":' ..
				(more < #ops and format("%d", successes + #ops - more) or successes) ..
				',"lastFailureTime":' .. (more > 0 and now or failed) .. ',"lastStateChange":' ..
				changed .. "}"
			if not pcall("SET", key, after, "PX", ARGV[1]).err then
				written = true
				reply[i] = "0 " .. (now or "0") .. " " .. state .. " " .. failures .. " " ..
					successes .. " " .. failed .. " " .. changed
			end
		end
	end
	if not reply[i] then
		left, values = left or {}, values or {}
		left[#left + 1], values[i] = i, value
		reports = reports or op == 109 -- m
	end
end
if not left then
	return reply
end

-- Now in milliseconds, as text; or nil, and the error.
local function read_time(pcall)
	local time = pcall("TIME")
	if time.err then
		return nil, time
	end
	return time[1] .. string.sub("00000" .. time[2], -6, -4)
end

-- The slots of a window without a zero before another digit: their sums, or nil if one is no sound one.
local function sum_slots(slots)
	local match = string.match
	local count, calls, fails, slows = 0, 0, 0, 0
	for slot in string.gmatch(slots .. ",", "([^,]*),") do
		local c, f, s, who = slot, "0", "0", ""
		if match(slot, "%.") then
			c, f, s, who = match(slot, "^(%d+)%.(%d+)%.(%d+)%.(%w*)$")
			if not c or f == "0" and s == "0" or #f > 9 or #s > 9 or #who > 32 or
				string.gsub(who, "%u[%l%d]", "") ~= "" then
				return nil
			end
		end
		if #c > 9 or not match(c, "^%d+$") then
			return nil
		end
		count, calls, fails, slows = count + 1, calls + c, fails + f, slows + s
	end
	if count > 10 then
		return nil
	end
	return calls, fails, slows
end

-- True if no number of successes makes the window's rates such that it opens, by the policy's words.
local function stays_closed(calls, fails, slows, failure_rate, slow, slow_rate, min_calls)
	local least = math.max(calls + 1, min_calls) -- with which a rate is looked at
	return (failure_rate == "0" or fails * 100 < failure_rate * least) and
		(slow == "0" or slows * 100 < slow_rate * least)
end

-- One report of successes on a closed circuit, in the slot of the last report, that cannot open it, and a
-- value as we write it: it counts, and nothing is decided. `report` is where it begins in `ops`, behind the
-- policy; the window and the slot are as they must be in the member. Gives the new value, and what the reply
-- says of the circuit; nil for anything else.
local function count_plainly(sum_slots, stays_closed, value, ops, report, window, slot, ttl)
	local match, format = string.match, string.format
	local kind, since, more = match(ops, "^;r([-cn]) (%d+) %x+ s 0 %w+ ([1-9]%d*)$", report)
	local failures, successes, failed, changed, member, of, fresh, openings, open_ms, run, width, newest,
		first, others
	if kind then
		failures, successes, failed, changed, member, of, fresh, openings, open_ms, run, width, newest,
			first, others = match(value, '^{"state":"closed","failureCount":(%d+),"successCount":(%d+),' ..
			'"lastFailureTime":(%d+),"lastStateChange":([1-9]%d*),"breakerd":"(1 0 (%d+) ([01]) (%d+) ' ..
			'(%d+) (%d+) w(%d+)%.(%d+):(%d+)([%w.,]*))"}$')
	end
	if not of or of ~= changed or width ~= window or newest ~= slot or kind == "c" and since ~= changed or
		kind == "n" and fresh == "0" or #slot < 3 or #changed > 15 or #failures > 15 or #successes > 9 or
		#failed > 15 or #openings > 9 or #open_ms > 9 or #run > 9 or #first > 9 or #more > 9 then
		return nil
	end
	-- A zero before another digit.
	if failures ~= "0" and match(failures, "^0") or successes ~= "0" and match(successes, "^0") or
		failed ~= "0" and match(failed, "^0") or openings ~= "0" and match(openings, "^0") or
		run ~= "0" and match(run, "^0") or first ~= "0" and match(first, "^0") or
		open_ms ~= "0" and (match(open_ms, "^0") or tonumber(open_ms) > tonumber(ttl)) then
		return nil
	end
	if match(others, "[%a.]") then
		local failure_rate, slow, slow_rate, min_calls =
			match(ops, "^m;p%d+ (%d+) ([01]) (%d+) %d+ (%d+)")
		local calls, fails, slows = sum_slots(first .. others)
		if match(others, "[,.]0%d") or not calls or
			not stays_closed(calls, fails, slows, failure_rate, slow, slow_rate, min_calls) then
			return nil
		end
	elseif others ~= "" then
		-- Each slot becomes a dot. Without a failure in them their sums do not matter.
		local text, some, none
		text, some = string.gsub(others, ",[1-9]%d?%d?%d?%d?%d?%d?%d?%d?", ".")
		text, none = string.gsub(text, ",0", ".")
		if #text ~= some + none or #text > 9 then
			return nil
		end
	end
	local calls, all = first + more, successes + more
	if calls > 999999999 or all > 999999999 then
		return nil
	end
	return '{"state":"closed","failureCount":' .. failures .. ',"successCount":' .. format("%d", all) ..
		',"lastFailureTime":' .. failed .. ',"lastStateChange":' .. changed .. ',"breakerd":"1 0 ' ..
		changed .. " " .. fresh .. " " .. openings .. " " .. open_ms .. " 0 w" .. width .. "." .. newest ..
		":" .. format("%d", calls) .. others .. '"}',
		failures .. " " .. successes .. " " .. failed .. " " .. changed .. " " .. member
end

-- Second pass: reports that are only counted.
if reports then
	local policy, window, slot
	local undecided = {}
	for _, i in ipairs(left) do
		local key, ops, value = KEYS[i], ARGV[i + 1], values[i]
		if byte(ops) == 109 and not value.err then -- m
			if not policy or string.sub(ops, 1, #policy) ~= policy then
				policy, window = match(ops, "^(m;p%d+ %d+ [01] %d+ (%d+) [%d ]+);r")
				slot = nil
			end
			if policy and not now then
				now = read_time(pcall)
			end
			if policy and now then
				slot = slot or format("%.0f", math.floor(now * 10 / window))
				local after, said = count_plainly(sum_slots, stays_closed, value, ops,
					#policy + 1, window, slot, ARGV[1])
				if after and not pcall("SET", key, after, "PX", ARGV[1]).err then
					reply[i], written = "0 " .. now .. " 0 " .. said, true
				end
			end
		end
		if not reply[i] then
			undecided[#undecided + 1] = i
		end
	end
	if #undecided == 0 then
		return reply
	end
	left = undecided
end

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
local function fold(plus, words, key, ttl, exists, state, failures, successes, failed, changed, member)
	local format = string.format

	-- When the key was last written, in milliseconds, if it then got the time to live that we give.
	local function last_written()
		local left, time = redis.pcall("PTTL", key), redis.pcall("TIME")
		if type(left) ~= "number" or time.err then
			return math.huge -- nobody may tell us: as if just now, which removes nothing
		elseif left < 0 or left > tonumber(ttl) then
			return 0 -- it has another one: only the stamps tell
		end
		return time[1] * 1000 + (time[2] - time[2] % 1000) / 1000 - (ttl - left)
	end

	local more_failures, more_successes, zero_failures, zero_successes, writes, to, change,
		failure, reset = string.match(words,
		"^w (%d+) (%d+) ([01]) ([01]) ([01]) ([0-3]) (%d+) (%d+) (%d+)$")
	local effect
	reset, change, failure = tonumber(reset), tonumber(change), tonumber(failure)
	-- An override is no change of state, and its key may have a longer life than ours.
	local override = tonumber(member and string.match(member, " o[12]%.(%d+)%.") or "0")
	if reset > 0 and exists and tonumber(failed) <= reset and tonumber(changed) <= reset and
		override <= reset and last_written() <= reset then
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
-- five where they stand among its calls. `m` is the circuit (its members by the script's names),
-- `exists`, `now` as a number and as text, and `member` as it was read; here the member's own
-- members join them. It is given back with the effect, `text` if the member is new, and `anew`
-- if there was a reset. Functions share no more than each other: what several of them capture
-- costs more than all that they do.
local function decide(plus, ops, m)
	local match, gmatch, format = string.match, string.gmatch, string.format

	-- Makes the member that of a circuit without one.
	local function clear(m)
		m.of_state, m.since, m.fresh, m.openings, m.open_ms = "0", 0, false, 0, 0
		m.run, m.width, m.newest, m.slots = 0, 0, 0, {}
		m.half_open, m.passed, m.probes = "0", 0, {}
	end
	-- True if a number has at most so many digits, and no zero before them.
	local function sound(text, digits)
		return #text <= digits and (text == "0" or string.byte(text) ~= 48)
	end
	-- A slot as a table of its text and numbers; nil if it is no sound one.
	local function read_slot(text)
		local calls, fails, slows, who
		if #text < 10 and match(text, "^%d+$") then
			return { text = text, calls = tonumber(text), fails = 0, slows = 0, who = "" }
		end
		calls, fails, slows, who = match(text, "^(%d+)%.(%d+)%.(%d+)%.([%u%l%d]*)$")
		if not calls or #calls > 9 or #fails > 9 or #slows > 9 or #who > 32 or
			fails == "0" and slows == "0" or string.gsub(who, "%u[%l%d]", "") ~= "" then
			return nil
		end
		return { text = text, calls = tonumber(calls), fails = tonumber(fails),
			slows = tonumber(slows), who = who }
	end

	local function decode_window(m, text, at)
		local width, newest, slots, pos = match(text, "^ w(%d+)%.(%d+):([%w.,]+)()", at)
		if not width or not sound(width, 9) or not sound(newest, 14) or width == "0" or
			match(slots, "^0%d") or match(slots, "[,.]0%d") then
			return nil
		end
		m.width, m.newest = tonumber(width), tonumber(newest)
		if m.newest > math.floor(9007199254740991 / m.width) then
			return nil
		end
		for text_of in gmatch(slots .. ",", "([^,]*),") do
			local slot = read_slot(text_of)
			if #m.slots == 10 or m.newest < #m.slots or not slot then
				return nil
			end
			m.slots[#m.slots + 1] = slot
		end
		return pos
	end
	local function decode_probes(m, text, at)
		local passed, first, hex, pos = match(text, "^ h(%d+)%.(%d+):([%da-f]*)()", at)
		if not passed or not sound(passed, 9) or not sound(first, 14) or #hex % 12 ~= 0 or
			#hex > 1200 then
			return nil
		end
		m.passed, m.half_open, first = tonumber(passed), format("%.0f", m.since), tonumber(first)
		for id, later in gmatch(hex, "(......)(......)") do
			m.probes[#m.probes + 1] = { id = id, deadline = first + tonumber(later, 16) }
		end
		return pos
	end
	local function decode_past_probes(m, text, at)
		local since, hex, pos = match(text, "^ q(%d+):([%da-f]*)()", at)
		if not since or not sound(since, 16) or since == "0" or
			tonumber(since) > 9007199254740991 or #hex % 6 ~= 0 or #hex > 600 then
			return nil
		end
		m.half_open = since
		for id in gmatch(hex, "......") do
			m.probes[#m.probes + 1] = { id = id, deadline = 0 }
		end
		return pos
	end
	local function decode_override(m, text, at)
		local mode, since, till, why, pos = match(text, "^ o([12])%.(%d+)%.(%d+):([%da-f]*)()", at)
		if not mode or not sound(since, 14) or not sound(till, 14) or #why % 2 ~= 0 or
			#why > 400 or till - since > 2592000000 then
			return nil
		end
		m.override = { mode = mode, till = tonumber(till), text = string.sub(text, at, pos - 1) }
		return pos
	end
	-- Reads the member. True if there is one.
	local function decode(m, text)
		local at, since, fresh, openings, open_ms, run, pos =
			match(text, "^1 ([012]) (%d+) ([01]) (%d+) (%d+) (%d+)()")
		if not at or #since > 16 or #openings > 9 or #open_ms > 9 or #run > 9 or
			match(text, " 0%d") then
			return false
		end
		m.of_state, m.since, m.fresh = at, tonumber(since), fresh == "1"
		m.openings, m.open_ms, m.run = tonumber(openings), tonumber(open_ms), tonumber(run)
		if m.since > 9007199254740991 then
			return false
		end
		local letter = string.sub(text, pos + 1, pos + 1)
		if letter == "w" and at == "0" then
			pos = decode_window(m, text, pos)
			letter = pos and string.sub(text, pos + 1, pos + 1)
		end
		if letter == "h" and at == "2" then
			pos = decode_probes(m, text, pos)
		elseif at == "2" then
			return false
		elseif letter == "q" then
			pos = decode_past_probes(m, text, pos)
		end
		if pos and string.sub(text, pos + 1, pos + 1) == "o" then
			pos = decode_override(m, text, pos)
		end
		return pos == #text + 1
	end

	local function encode(m)
		local text = format("1 %s %s %d %d %d %d", m.state, m.changed, m.fresh and 1 or 0,
			m.openings, m.open_ms, m.run)
		if m.slots[1] then
			local slots = {}
			for i = 1, #m.slots do
				slots[i] = m.slots[i].text
			end
			text = text .. format(" w%d.%.0f:", m.width, m.newest) .. table.concat(slots, ",")
		end
		if m.state == "2" then
			local first = m.probes[1] and m.probes[1].deadline or 0
			for _, probe in ipairs(m.probes) do
				first = math.min(first, probe.deadline)
			end
			text = text .. format(" h%d.%.0f:", m.passed, first)
			for _, probe in ipairs(m.probes) do
				text = text .. probe.id .. format("%06x", probe.deadline - first)
			end
		elseif m.half_open ~= "0" then
			text = text .. " q" .. m.half_open .. ":"
			for _, probe in ipairs(m.probes) do
				text = text .. probe.id
			end
		end
		return text .. (m.override and m.override.text or "")
	end

	-- An override stays.
	local function forget(m)
		clear(m)
		m.of_state, m.since = m.state, tonumber(m.changed)
		m.fresh = m.state == "0" and
			(not m.exists or not m.found and (m.failures ~= "0" or m.successes ~= "0"))
		m.half_open = m.state == "2" and m.changed or "0"
	end
	-- tidy of proto/breaker.c, and before the first time the member and the policy are read.
	local function tidy(m)
		if not m.slots then
			clear(m)
			m.found = m.member and decode(m, m.member)
			if not m.found then
				clear(m)
				m.override = nil
			end
		end
		if m.policy then
			local p = {}
			for word in gmatch(m.policy, "%d+") do
				p[#p + 1] = tonumber(word)
			end
			m.consecutive_failures, m.failure_rate, m.slow, m.slow_rate, m.window, m.min_calls,
				m.min_reporters, m.open_time, m.open_growth, m.open_time_max, m.max_probes,
				m.probe_successes, m.probe_timeout = unpack(p)
			m.policy = nil
		end
		if m.override and m.override.till <= m.now then
			m.override = nil
		end
		if m.exists and m.found and m.of_state == m.state and m.since == tonumber(m.changed) then
			return
		end
		forget(m)
	end

	-- proto/circuit.c
	local function move(m, to)
		m.state, m.changed = to, m.now_text
		if to == "0" then
			m.failures = "0"
		end
		if to ~= "1" then
			m.successes = "0"
		end
	end
	local function record(m, is_failure, count)
		if is_failure then
			m.failures, m.failed = plus(m.failures, 1), m.now_text
		else
			m.successes = plus(m.successes, count)
		end
	end

	local function opening(m, openings)
		local ms = m.open_time
		if m.open_growth > 1000 then
			while openings > 0 and ms < m.open_time_max do
				ms, openings = ms * m.open_growth / 1000, openings - 1
			end
		end
		return ms >= m.open_time_max and m.open_time_max or math.ceil(ms)
	end
	local function age(m)
		local ms = m.now - tonumber(m.changed)
		return ms < -60000 and math.huge or math.max(ms, 0)
	end
	local function decide_to(m, to)
		move(m, to)
		m.of_state, m.since, m.fresh = to, m.now, false
		m.run, m.width, m.newest, m.slots = 0, 0, 0, {}
	end
	local function open(m, openings)
		m.openings = math.min(openings, 20000)
		m.open_ms = opening(m, m.openings)
		decide_to(m, "1")
	end

	-- proto/breaker_window.c
	local function add(slot, calls, fails, slows, whos)
		slot.calls = math.min(slot.calls + calls, 999999999)
		slot.fails = math.min(slot.fails + fails, 999999999)
		slot.slows = math.min(slot.slows + slows, 999999999)
		for who in gmatch(whos, "..") do
			local known = #slot.who == 32
			for other in gmatch(slot.who, "..") do
				known = known or other == who
			end
			slot.who = known and slot.who or slot.who .. who
		end
		if slot.fails == 0 and slot.slows == 0 then
			slot.text = format("%d", slot.calls)
		else
			slot.text = format("%d.%d.%d.%s", slot.calls, slot.fails, slot.slows, slot.who)
		end
	end
	local function go_to(m, number)
		local slots, ahead = m.slots, number - m.newest
		if not slots[1] or ahead >= 10 or ahead <= -10 then
			m.newest, m.slots = number, { read_slot("0") }
			return
		end
		if ahead <= 0 then
			return
		end
		for _ = 1, ahead do
			table.insert(slots, 1, read_slot("0"))
		end
		m.newest = number
		while #slots > 10 or #slots > 1 and slots[#slots].calls == 0 do
			slots[#slots] = nil
		end
	end
	local function advance(m)
		if m.slots[1] and m.width ~= m.window then
			local old, newest, floor = m.slots, m.newest, math.floor
			m.slots = {}
			for i = #old, 1, -1 do
				go_to(m, floor(floor((newest - i + 1) * m.width / 10) * 10 / m.window))
				add(m.slots[1], old[i].calls, old[i].fails, old[i].slows, old[i].who)
			end
		end
		m.width = m.window
		go_to(m, math.floor(m.now * 10 / m.window))
	end
	local function reporters(m)
		local count, seen = 0, {}
		for _, slot in ipairs(m.slots) do
			for who in gmatch(slot.who, "..") do
				count, seen[who] = count + (seen[who] and 0 or 1), true
			end
		end
		return count
	end
	-- How many of the reports were counted, and whether the last of them opens.
	local function count_in_window(m, is_failure, is_slow, who, count)
		local calls, fails, slows = 0, 0, 0
		for _, slot in ipairs(m.slots) do
			calls, fails, slows = calls + slot.calls, fails + slot.fails, slows + slot.slows
		end
		-- Not more than a slot holds.
		local newest = m.slots[1]
		if is_failure and newest.fails < 999999999 then
			fails = fails + 1
		end
		if is_slow and newest.slows < 999999999 then
			slows = slows + 1
		end
		m.run = is_failure and math.min(m.run + 1, 999999999) or 0
		local first = math.min(count, calls < m.min_calls and m.min_calls - calls or 1)
		calls = calls + first
		local over = m.consecutive_failures > 0 and m.run >= m.consecutive_failures or
			calls >= m.min_calls and
			(m.failure_rate > 0 and fails * 100 >= m.failure_rate * calls or
			m.slow > 0 and slows * 100 >= m.slow_rate * calls)
		add(newest, 0, is_failure and 1 or 0, is_slow and 1 or 0,
			(is_failure or is_slow) and who or "")
		over = over and reporters(m) >= m.min_reporters
		count = over and first or count
		add(newest, count, 0, 0, "")
		return count, over
	end

	local function find_probe(m, id)
		for i, probe in ipairs(m.probes) do
			if probe.id == id then
				return i
			end
		end
	end
	local function check_deadlines(m)
		local lost, shortened, last = false, false, m.now + m.probe_timeout
		for i = m.state == "2" and #m.probes or 0, 1, -1 do
			local probe = m.probes[i]
			if probe.deadline <= m.now then
				table.remove(m.probes, i)
				lost = true
			elseif probe.deadline > last + 1000 then
				probe.deadline = last
				shortened = true
			end
		end
		if lost then
			open(m, m.openings)
		end
		return lost or shortened
	end

	-- On a circuit that is not closed. True if something changed.
	local function acquire(m, random)
		local changed = check_deadlines(m)
		if m.override and m.override.mode == "1" then
			return changed
		end
		if m.state == "1" then
			local open_ms = m.open_ms > 0 and m.open_ms or opening(m, 0)
			if open_ms > age(m) then
				return changed
			end
			m.open_ms = open_ms
			decide_to(m, "2")
			m.half_open, m.passed, m.probes = m.now_text, 0, {}
		end
		local probes = m.probes
		if #probes >= m.max_probes or #probes >= 100 then
			return changed
		end
		local id = random % 16777216
		while find_probe(m, format("%06x", id)) do
			id = (id + 1) % 16777216
		end
		probes[#probes + 1] = { id = format("%06x", id), deadline = m.now + m.probe_timeout }
		local last = math.huge
		for _, probe in ipairs(probes) do
			last = math.min(last, probe.deadline + 16777215)
		end
		for _, probe in ipairs(probes) do
			probe.deadline = math.min(probe.deadline, last)
		end
		return true
	end

	-- check_permit of proto/breaker.c: true or the number of a probe's permit, if it may count.
	local function counts(m, kind, since, id)
		if kind == "p" then
			return m.state == "2" and tonumber(since) == tonumber(m.half_open) and find_probe(m, id)
		elseif kind == "c" then
			return m.exists and m.state == "0" and tonumber(m.changed) == tonumber(since)
		end
		return m.state == "0" and (kind == "-" or kind == "n" and m.fresh)
	end
	local function report(m, token)
		local kind, since, id, outcome, is_slow, who, count =
			match(token, "^r(.) (%d+) (%x+) ([sfi]) ([01]) (%w+) (%d+)$")
		local changed = check_deadlines(m)
		local which = counts(m, kind, since, id)
		if not which then
			return changed
		end
		local is_failure = outcome == "f"
		is_slow = is_slow == "1"
		if kind ~= "p" then
			if outcome == "i" then
				return false
			end
			local over
			advance(m)
			count, over = count_in_window(m, is_failure, is_slow, who, tonumber(count))
			record(m, is_failure, count)
			if over then
				local again = m.open_ms > 0 and age(m) < m.open_ms
				open(m, again and m.openings + 1 or 0)
			end
			return true
		end
		table.remove(m.probes, which)
		if outcome == "i" then
			return true
		end
		record(m, is_failure, 1)
		if is_failure or is_slow then
			open(m, m.openings + 1)
		else
			m.passed = m.passed + 1
			if m.passed >= m.probe_successes then
				decide_to(m, "0")
			end
		end
		return true
	end

	local function operate(m, op)
		if op == 115 or op == 102 then -- s, f
			record(m, op == 102, 1)
		elseif op == 100 then -- d
			m.exists, m.state, m.failures, m.successes, m.failed = false, "0", "0", "0", "0"
			m.changed, m.effect, m.text, m.anew = m.now_text, "DEL", nil, true
			m.member, m.slots, m.override = nil, nil, nil
			return
		else -- A to L; not g
			local from = (op - 65) % 4
			if op == 103 or from > 0 and from - 1 ~= tonumber(m.state) then
				return
			end
			tidy(m)
			m.by = "t"
			move(m, format("%d", math.floor((op - 65) / 4)))
			if m.found then -- breaker_obey of proto/breaker.c
				forget(m)
				m.text = encode(m)
			end
		end
		m.exists, m.effect = true, "SET"
	end

	for token in gmatch(ops, "[^;]+") do
		local verb, there = string.byte(token), m.exists
		local before, was = m.changed, m.state
		local changes = false
		if verb == 112 then -- p
			m.policy = token
		elseif verb == 97 then -- a
			if m.state ~= "0" then
				tidy(m)
				changes = acquire(m, tonumber(match(token, "%d+")))
			end
		elseif verb == 114 then -- r
			tidy(m)
			changes = report(m, token)
		elseif verb == 111 then -- o
			tidy(m)
			local mode, last, why = match(token, "^o([12]) (%d+) (%x+)$")
			local till = m.now + last
			m.override = { mode = mode, till = till,
				text = format(" o%s.%s.%.0f:%s", mode, m.now_text, till, why) }
			changes = true
		elseif verb == 107 then -- k: the caller wants to know of the override
			tidy(m)
		elseif verb == 120 then -- x
			tidy(m)
			changes = m.override ~= nil
			m.override = nil
		else
			operate(m, verb)
		end
		if (m.changed ~= before or m.state ~= was) and (there or m.state ~= "0") or verb == 100 or
			changes and (verb == 111 or verb == 120) then
			m.by = verb < 97 and "t" or string.char(verb)
		end
		if changes then
			m.exists, m.effect, m.found = true, "SET", true
			m.text = encode(m)
		end
	end
end

-- As count_plainly, for more than one report or a value with members that are not ours. Gives how many
-- successes are counted, and the new member; nil for anything else, of which decide says what it comes to.
-- decide costs some five times as much.
local function count_successes(sum_slots, stays_closed, ops, member, changed, now)
	local match = string.match
	local failure_rate, slow, slow_rate, window, min_calls, reports =
		match(ops, "^;?p%d+ (%d+) ([01]) (%d+) (%d+) (%d+) [%d ]+(;.+)$")
	local fresh, openings, open_ms, run, newest, slots
	if window then
		fresh, openings, open_ms, run, newest, slots = match(member, "^1 0 " .. changed ..
			" ([01]) (%d+) (%d+) (%d+) w" .. window .. "%.(%d+):([%w.,]+)$")
	end
	-- What decide would take for no sound member is left to it.
	if not slots or newest ~= string.format("%.0f", math.floor(now * 10 / window)) or
		#newest < 3 or #openings > 9 or #open_ms > 9 or #run > 9 or match(member, "[ :,.]0%d") then
		return nil
	end
	local calls, fails, slows = sum_slots(slots)
	if not calls or not stays_closed(calls, fails, slows, failure_rate, slow, slow_rate, min_calls) then
		return nil
	end
	local more = 0
	for token in string.gmatch(reports, "[^;]+") do
		local kind, since, n = match(token, "^r([-cn]) (%d+) %x+ s 0 %w+ ([1-9]%d*)$")
		if not kind or kind == "c" and since ~= changed or kind == "n" and fresh == "0" then
			return nil
		end
		more = more + n
	end
	local first, others = match(slots, "^(%d+)(.*)$")
	if first + more > 999999999 then
		return nil
	end
	return more, "1 0 " .. changed .. " " .. fresh .. " " .. openings .. " " .. open_ms .. " 0 w" ..
		window .. "." .. newest .. ":" .. string.format("%d", first + more) .. others
end

-- For how many milliseconds a circuit lives that is written with this member: at least until the member
-- has no say any more (breaker_matters_until of proto/breaker.c).
local function lifetime(ttl, member, now)
	local match = string.match
	local state, since, open_ms = match(member, "^1 ([012]) (%d+) [01] %d+ (%d+) %d+")
	if not state or #since > 16 or #open_ms > 9 then
		return ttl
	end
	local lasts, last = tonumber(open_ms) * (state == "1" and 2 or 1), tonumber(since)
	local first, hex
	if state == "2" then
		first, hex = match(member, "^[%w .,:]- h%d+%.(%d+):([%da-f]*)")
	end
	if first and #first <= 14 then
		for later in string.gmatch(hex, "......(......)") do
			last = math.max(last, first + tonumber(later, 16))
		end
	elseif lasts <= tonumber(ttl) then
		return ttl
	end
	if not now then
		local time = redis.pcall("TIME")
		now = time.err and 0 or time[1] * 1000
	end
	-- A stamp far ahead is of another clock: the longest probe_timeout is an hour.
	last = math.min(last, now + 3600000)
	return string.format("%.0f", math.max(ttl, last + lasts - now))
end

-- Third pass: everything else.

-- The largest value that is read or written. A larger one would hold up Redis.
local MAX = 65536
local channel = ARGV[#KEYS + 2] -- with the number of the database, as channels know none
for _, i in ipairs(left) do
	local key, ops, value = KEYS[i], ARGV[i + 1], values[i]
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
		local name, rest_at
		name, failures, successes, failed, changed, rest_at = match(value,
			'^%b{:(%b"")%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)%b,:0?(%d*)()')
		if name and string.byte(value, rest_at) ~= 125 then
			member = match(value, '^,"breakerd":"([%w .,:]*)"}$', rest_at)
			others = member and ',"breakerd":"' .. member .. '"}'
			name = member and name
		end
		if failures == "" then failures = "0" end
		if successes == "" then successes = "0" end
		if failed == "" then failed = "0" end
		if changed == "" then changed = "0" end
		state = name == '"closed"' and "0" or name == '"open"' and "1" or
			name == '"half-open"' and "2"
		if state and #failures < 16 and #successes < 16 and #failed < 16 and #changed < 16 and
			value == '{"state":' .. name .. ',"failureCount":' .. failures ..
			',"successCount":' .. successes .. ',"lastFailureTime":' .. failed ..
			',"lastStateChange":' .. changed .. others then
			stored = "0"
		else
			stored, state, failures, successes, failed, changed, others, member, rest = scan(value)
		end
	end

	local exists = stored == "0" or stored == "1"
	local was, by = exists and state or "3", nil
	local recorded = ops == "f" or ops == "s" -- once, as mostly
	local first = not recorded and string.byte(ops)
	if first == 119 then -- w
		local afresh
		local before = changed
		effect, exists, state, failures, successes, failed, changed, afresh = fold(plus, ops, key,
			ARGV[1], exists, state, failures, successes, failed, changed, member)
		if afresh then
			others = "}"
		end
		if afresh or not exists then
			member = nil
		end
		by = (effect == "DEL" or (changed ~= before or state ~= was) and
			(was ~= "3" or state ~= "0")) and "w"
		if not exists then
			state, failures, successes, failed, changed = "0", "0", "0", "0", "0"
		end
		stored, ops = exists and "0" or "3", ""
	end

	-- It may have an override, or is no member: only decide reads all of it.
	local held = member and match(member, " o[12]%.%d")
	if not now and (held or ops ~= "" and (not exists or ops == "f" or
		not recorded and (match(ops, "[^gsd]") or match(ops, "d.")))) then
		local err
		now, err = read_time(pcall)
		if err then
			failure, ops, effect = err, "", nil
		end
	end
	reply[i] = stored .. " " .. (now or "0") .. " " .. state .. " " .. failures .. " " ..
		successes .. " " .. failed .. " " .. changed
	if member and #member < 2048 and match(member, "^1 [%w .,:]*$") then
		reply[i] = reply[i] .. " " .. member
	elseif first == 109 then -- m
		reply[i] = reply[i] .. " -"
	end

	if not exists then
		changed = now
	end
	local decides = ops ~= "" and first == 109 -- m
	if decides then
		ops = string.sub(ops, 2)
	elseif member and not recorded and match(ops, "[A-L]") then
		-- A transition changes the member, too.
		decides, ops = true, string.gsub(ops, ".", "%0;")
	end
	local counted, text
	if decides and member and exists and state == "0" then
		counted, text = count_successes(sum_slots, stays_closed, ops, member, changed,
			tonumber(now))
	end
	if counted then
		successes, effect, ops = plus(successes, counted), "SET", ""
		member, others = text, ',"breakerd":"' .. text .. '"' .. rest
	elseif decides then
		local m = { exists = exists, state = state, failures = failures, successes = successes,
			failed = failed, changed = changed, member = member, now = tonumber(now),
			now_text = now }
		decide(plus, ops, m)
		effect, exists, state, failures, successes, failed, changed = m.effect, m.exists, m.state,
			m.failures, m.successes, m.failed, m.changed
		by = m.by
		if m.anew then
			others, rest = "}", "}"
		end
		if m.text then
			others = ',"breakerd":"' .. m.text .. '"' .. rest
		end
		member = m.text or member
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
				effect, by = "DEL", "d"
			elseif op ~= 103 then -- A to L, not g
				local from = (op - 65) % 4
				if from == 0 or from - 1 == tonumber(state) then
					changed, effect, by = now, "SET", "t"
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
		local ttl = ARGV[1]
		if others ~= "}" and member then
			ttl = lifetime(ttl, member, now)
		end
		-- The circuit lives as long as its override, 30 days at most.
		if others ~= "}" and member and match(member, " o[12]%.%d") then
			local m = { exists = true, state = state, failures = failures,
				successes = successes, changed = changed, member = member,
				now = tonumber(now) }
			decide(plus, "k", m)
			if m.override then
				local left = math.min(m.override.till - m.now, 2592000000)
				ttl = string.format("%.0f", math.max(ttl, left))
			end
		end
		if #after > MAX then
			failure = { err = "TOOLARGE the value would become larger than 64 KiB" }
		else
			result = pcall("SET", key, after, "PX", ttl)
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
		local db, name = match(by and channel or "", "^(%d+) (.*)$")
		if db and (effect == "SET" or was ~= "3") then
			local at = effect == "SET" and changed or now
			at = at or read_time(pcall) or "0"
			pcall("PUBLISH", name, "1 " .. db .. " " .. by .. " " .. was .. " " ..
				(effect == "SET" and state or "3") .. " " .. failures .. " " .. successes ..
				" " .. failed .. " " .. at .. "\n" ..
				(effect == "SET" and others ~= "}" and member or "-") .. "\n" .. key)
		end
	end
end
return reply
