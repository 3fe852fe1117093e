-- A script of wrk: requests to one circuit, or to random ones, and the figures as one line of JSON.
--
-- usage: wrk ... -s load.lua URL -- CIRCUITS METHOD PREFIX SUFFIX [METHOD PREFIX SUFFIX]
-- A path is PREFIX, the circuit's name, SUFFIX. What follows a space in SUFFIX is the body. Two kinds of
-- request alternate.

local threads = 0

function setup(thread)
	threads = threads + 1
	thread:set("seed", threads)
end

function init(args)
	local circuits = tonumber(args[1])
	local kinds = {}
	for i = 2, #args, 3 do
		local suffix, body = args[i + 2]:match("^(%S*) ?(.*)$")
		kinds[#kinds + 1] = { method = args[i], prefix = args[i + 1], suffix = suffix,
			body = body ~= "" and body or nil }
	end
	local function whole(kind, name)
		return wrk.format(kind.method, kind.prefix .. name .. kind.suffix, nil, kind.body)
	end

	if circuits == 1 and #kinds == 1 then
		-- Without a function `request`, wrk sends the same bytes each time, which is cheapest.
		wrk.method, wrk.path = kinds[1].method, kinds[1].prefix .. "c1" .. kinds[1].suffix
		return
	end
	math.randomseed(seed)
	for _, kind in ipairs(kinds) do
		-- Formatting each request would take wrk longer than the server takes to answer.
		local text = whole(kind, "\1")
		local at = text:find("\1", 1, true)
		kind.head, kind.tail = text:sub(1, at - 1), text:sub(at + 1)
		kind.only = circuits == 1 and whole(kind, "c1")
	end
	local turn = 0
	request = function()
		turn = turn % #kinds + 1
		local kind = kinds[turn]
		return kind.only or kind.head .. "c" .. math.random(circuits) .. kind.tail
	end
end

function done(summary, latency)
	local errors = summary.errors
	io.write(string.format('\nFIGURES {"requests":%d,"us":%d,"failed":%d,"p50":%d,"p99":%d,"p999":%d}\n',
		summary.requests, summary.duration,
		errors.status + errors.connect + errors.read + errors.write + errors.timeout,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
