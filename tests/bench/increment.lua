-- recordFailure and recordSuccess as a user would write them for Redis; webdis calls this script.
-- EVALSHA sha 1 key ttl member
local now = redis.call("TIME")
now = now[1] * 1000 + math.floor(now[2] / 1000)
local circuit = redis.call("GET", KEYS[1])
circuit = circuit and cjson.decode(circuit) or {
	state = "closed", failureCount = 0, successCount = 0, lastFailureTime = 0, lastStateChange = now,
}
circuit[ARGV[2]] = circuit[ARGV[2]] + 1
if ARGV[2] == "failureCount" then
	circuit.lastFailureTime = now
end
circuit = cjson.encode(circuit)
redis.call("SET", KEYS[1], circuit, "EX", ARGV[1])
return circuit
