-- A circuit breaker for nginx with its Lua module, whose state many gateways share through breakerd.
-- gateway.conf, beside this, shows its use. When breakerd does not answer, requests pass.

local Breaker = {}
Breaker.__index = Breaker

local FAILED = { [500] = true, [502] = true, [503] = true, [504] = true }
local QUEUE = 1000 -- outcomes that wait to be recorded, in each worker

-- options: host ("127.0.0.1", or "unix:/path"), port, threshold, open_ms, timeout (ms), token
function Breaker.new(options)
	local self = { host = "127.0.0.1", port = 8747, threshold = 5, open_ms = 30000, timeout = 300 }
	for name, value in pairs(options or {}) do
		self[name] = value
	end
	self.first, self.last = 1, 0 -- of the queue, which is in self[1], self[2] ...
	return setmetatable(self, Breaker)
end

local function receive(sock)
	local line, err = sock:receive()
	local status = tonumber(line and line:match("^HTTP/1%.1 (%d+)"))
	local length, keep = nil, true
	while line and line ~= "" do
		line, err = sock:receive()
		local name, value = (line or ""):match("^([%w-]+):%s*(.*)$")
		name = name and name:lower()
		length = name == "content-length" and tonumber(value) or length
		keep = keep and not (name == "connection" and value:lower() == "close")
	end
	local body = line and length and sock:receive(length)
	return body and status, body, keep, err
end

-- The circuit as JSON; false if it was no longer in the state "from"; nil without an answer.
function Breaker:ask(key, verb, body)
	local sock = ngx.socket.tcp()
	sock:settimeouts(self.timeout, self.timeout, self.timeout)
	local ok, err
	if self.host:find("^unix:") then
		ok, err = sock:connect(self.host)
	else
		ok, err = sock:connect(self.host, self.port)
	end
	local status, answer, keep
	if ok then
		ok, err = sock:send({ body and "POST" or "GET", " /v1/circuits/", ngx.escape_uri(key), verb, " HTTP/1.1\r\n",
			"Host: localhost\r\n", self.token and "Authorization: Bearer " .. self.token .. "\r\n" or "",
			"Content-Length: ", #(body or ""), "\r\n\r\n", body or "" })
	end
	if ok then
		status, answer, keep, err = receive(sock)
	end
	if status and keep then
		sock:setkeepalive(30000, 64) -- before breakerd closes it (idle_timeout, 60 s)
	else
		sock:close()
	end
	if status == 200 or status == 409 then
		return status == 200 and answer
	end
	ngx.log(ngx.WARN, "breakerd: ", err or answer, ": requests pass")
	return nil
end

function Breaker:transition(key, from, to)
	return self:ask(key, "/transition", ('{"from":"%s","to":"%s"}'):format(from, to))
end

function Breaker:permit(key)
	local circuit = self:ask(key, "")
	local state = circuit and circuit:match('"state":"([a-z-]+)"')
	if not state then
		return "unknown"
	elseif state == "closed" then
		return "closed"
	end
	local left = tonumber(circuit:match('"lastStateChange":(%d+)')) + self.open_ms - ngx.now() * 1000
	left = math.min(left, self.open_ms) -- our clock may be a little behind
	if left > 0 then
		return "open", left
	elseif state == "half-open" then -- whoever probed never came back
		self:transition(key, "half-open", "open")
		return "open", self.open_ms
	end
	local won = self:transition(key, "open", "half-open") -- of all gateways, one
	return won == nil and "unknown" or won and "half-open" or "open", self.open_ms
end

-- For access_by_lua: lets the request pass, or answers it with 503.
function Breaker:enter(key)
	local permit, left = self:permit(key)
	if permit == "open" then
		ngx.header["Retry-After"] = math.max(1, math.ceil(left / 1000))
		return ngx.exit(503)
	end
	ngx.ctx.breaker = { key = key, permit = permit }
end

function Breaker:record(job)
	local circuit = self:ask(job.key, job.failed and "/failure" or "/success", "")
	if job.permit == "half-open" then
		self:transition(job.key, "half-open", job.failed and "open" or "closed")
	elseif job.failed and circuit and tonumber(circuit:match('"failureCount":(%d+)')) >= self.threshold then
		self:transition(job.key, "closed", "open")
	end
	return circuit ~= nil
end

-- For log_by_lua: has the outcome recorded. Nothing may wait in that phase, so a timer does it,
-- one for all that is waiting in this worker.
function Breaker:leave()
	local job = ngx.ctx.breaker
	-- A client that left says nothing about the upstream, unless its request was the probe.
	if not job or job.permit == "unknown" or (ngx.status == 499 and job.permit ~= "half-open") then
		return
	end
	job.failed = FAILED[ngx.status] or ngx.status == 499
	if self.last - self.first >= QUEUE then
		return
	end
	self.last = self.last + 1
	self[self.last] = job
	if self.draining then
		return
	end
	self.draining = ngx.timer.at(0, function()
		while self.first <= self.last do
			local _, answered = pcall(self.record, self, self[self.first])
			repeat -- without an answer all that waits is given up
				self[self.first] = nil
				self.first = self.first + 1
			until answered == true or self.first > self.last
		end
		self.draining = false
	end)
end

return Breaker
