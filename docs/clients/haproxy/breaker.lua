-- A circuit breaker for HAProxy 2.6 or later whose state many gateways share through breakerd.
-- haproxy.cfg, beside this, shows its use. When breakerd does not answer, requests pass.
--
--   http-request lua.breaker_enter KEY OPEN_MS    sets txn.breaker: closed (go), half-open (go: it is
--                                                  the probe), unknown (go), open (answer 503)
--   http-after-response set-var(txn.breaker_left) lua.breaker_leave(KEY,THRESHOLD)

local BREAKERD = "abns@breakerd" -- the proxy of this name: it keeps connections and times out
local silent = false -- breakerd does not answer
local FAILED = { [500] = true, [502] = true, [503] = true, [504] = true }

-- The circuit as JSON; false if it was no longer in the state "from"; nil without an answer.
local function ask(key, verb, body)
	local path = key:gsub("[^%w_~-]", function(c) return ("%%%02X"):format(c:byte()) end)
	local client = core.httpclient()
	local request = { dst = BREAKERD, url = "http://localhost/v1/circuits/" .. path .. verb, body = body }
	local answer = body and client:post(request) or not body and client:get(request) or {}
	local answered = answer.status == 200 or answer.status == 409
	if not answered and not silent then -- once, not for each request
		core.Warning(("breakerd: %s: requests pass"):format(answer.status or "no answer"))
	end
	silent = not answered
	if answered then
		return answer.status == 200 and answer.body
	end
	return nil
end

local function transition(key, from, to)
	return ask(key, "/transition", ('{"from":"%s","to":"%s"}'):format(from, to))
end

local function enter(txn, key, open_ms)
	local circuit = ask(key, "")
	local state = circuit and circuit:match('"state":"([a-z-]+)"')
	if not state then
		return "unknown"
	elseif state == "closed" then
		return "closed"
	end
	-- Not core.now(), which is no wall clock.
	local left = tonumber(circuit:match('"lastStateChange":(%d+)')) + open_ms - txn.f:date(0, "ms")
	left = math.min(left, open_ms) -- our clock may be a little behind
	txn:set_var("txn.breaker_retry_after", math.max(1, (left + 999) // 1000))
	if left > 0 then
		return "open"
	elseif state == "half-open" then -- whoever probed never came back
		transition(key, "half-open", "open")
		return "open"
	end
	local won = transition(key, "open", "half-open") -- of all gateways, one
	return won == nil and "unknown" or won and "half-open" or "open"
end

core.register_action("breaker_enter", { "http-req" }, function(txn, key, open_ms)
	txn:set_var("txn.breaker", enter(txn, key, tonumber(open_ms)))
end, 2)

local function leave(key, permit, failed, threshold)
	local circuit = ask(key, failed and "/failure" or "/success", "")
	if permit == "half-open" then
		transition(key, "half-open", failed and "open" or "closed")
	elseif failed and circuit and tonumber(circuit:match('"failureCount":(%d+)')) >= threshold then
		transition(key, "closed", "open")
	end
end

-- A fetch, since only http-after-response sees HAProxy's own 503 and 504 too. It must not wait:
-- a task tells breakerd.
core.register_fetches("breaker_leave", function(txn, key, threshold)
	local permit, status = txn:get_var("txn.breaker"), tonumber(txn.f:status())
	if permit == "closed" or permit == "half-open" then
		core.register_task(function() leave(key, permit, FAILED[status], tonumber(threshold)) end)
	end
	return ""
end)
