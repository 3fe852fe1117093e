"""Models of Envoy and Traefik, made from their sources: what they send for a check, how they treat the answer, and how
they report. The models read the files in docs/gateways; the programs themselves do not run here.

Envoy (github.com/envoyproxy/envoy; each file with the commit at which it was read):
  source/extensions/filters/common/ext_authz/ext_authz_http_impl.cc  9c276e34a2, RawHttpClientImpl::check, toResponse
  source/common/http/async_client_impl.cc                            02a45cb9a2, AsyncStreamImpl::sendHeaders
  docs/root/configuration/http/http_filters/lua_filter.rst           0089fe6cf8, httpCall
Traefik v3.7.9 (github.com/traefik/traefik):
  pkg/middlewares/auth/forward.go                                    ServeHTTP, writeHeader
  pkg/server/service/loadbalancer/failover/failover.go               ServeHTTP
  pkg/proxy/httputil/proxy.go                                        ComputeStatusCode
  pkg/middlewares/accesslog/logger.go, field_middleware.go           logTheRoundTrip, AddServiceFields
"""

import json
import os
import signal
import subprocess

import yaml

from gateways import changed, text_of
from wire import Client, Closed, Wire

# A stand-in for the handle that Envoy gives to the script: headers, metadata, httpCall.
LUA_HANDLE = """
local source, passed, permit, status, time = ...
assert(loadstring(source))()
local metadata = {}
local function handle(headers)
  return {
    headers = function()
      return { get = function(_, n) return headers[n] end, remove = function(_, n) headers[n] = nil end }
    end,
    streamInfo = function()
      return { dynamicMetadata = function()
        return { get = function(_, n) return metadata[n] end,
                 set = function(_, n, k, v) metadata[n] = metadata[n] or {} metadata[n][k] = v end }
      end }
    end,
    httpCall = function(_, cluster, h, body, timeout, asynchronous)
      assert(cluster == "breakerd" and timeout > 0 and asynchronous == true)
      print(h[":method"], h[":path"], h[":authority"], body)
    end,
  }
end
if passed == "yes" then
  local request = { ["breakerd-permit"] = permit ~= "" and permit or nil }
  envoy_on_request(handle(request))
  assert(next(request) == nil, "the upstream gets the permit")
end
envoy_on_response(handle({ [":status"] = status, ["x-envoy-upstream-service-time"] = time ~= "" and time or nil }))
"""


class Gateway:
    """A gateway. `address`: the daemon's. ask() checks, then forwards or refuses the request. `own`: the status of an answer
    that the gateway itself gives in place of the upstream's."""

    def __init__(self, address, upstream):
        self.address = address
        self.upstream = upstream

    def exchange(self, method, path, headers, timeout):
        """The answer, or None if there is none."""
        try:
            with Wire(self.address, timeout) as wire:
                return wire.ask(method, path, headers)
        except (OSError, Closed):
            return None

    def upstreams_answer(self):
        client = Client(("127.0.0.1", self.upstream.port), "x")
        try:
            return client.get("/").status
        finally:
            client.close()

    def stop(self):
        pass


class Envoy(Gateway):
    def __init__(self, address, upstream, _directory, _reports):
        super().__init__(address, upstream)
        listener = yaml.safe_load(text_of("envoy", "envoy.yaml"))["static_resources"]["listeners"][0]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        names = [f["name"].rpartition(".")[2] for f in manager["http_filters"]]
        assert names == ["header_mutation", "ext_authz", "lua", "router"]
        filters = {n: f["typed_config"] for n, f in zip(names, manager["http_filters"])}
        assert filters["header_mutation"]["mutations"] == {"request_mutations": [{"remove": "breakerd-permit"}]}
        assert filters["ext_authz"]["failure_mode_allow"] is True
        self.service = filters["ext_authz"]["http_service"]
        self.lua = filters["lua"]["default_source_code"]["inline_string"]
        self.mapper, = manager["local_reply_config"]["mappers"]
        assert self.mapper["filter"] == {"response_flag_filter": {"flags": ["UAEX"]}}

    def ask(self, method="GET", path="/", headers=(), own=None):
        given = {name.lower(): value for name, value in dict(headers).items() if name.lower() != "breakerd-permit"}
        sent = [("content-length", "0"), ("host", "shop.example")]
        sent += [("authorization", given["authorization"])] if "authorization" in given else []
        sent += [("x-envoy-internal", "true"), ("x-forwarded-for", "10.0.0.1")]
        timeout = float(self.service["server_uri"]["timeout"].rstrip("s"))
        answer = self.exchange(method, self.service["path_prefix"] + path, sent, timeout)
        permit = ""
        if answer and answer.status == 200:
            rules = self.service["authorization_response"]
            assert rules["allowed_upstream_headers"]["patterns"] == [{"exact": "breakerd-permit"}]
            permit = answer.header("breakerd-permit") or ""
        elif answer and answer.status < 500:
            self.run_lua("no", "", self.mapper["status_code"], "")
            return self.mapper["status_code"], answer.header("retry-after")
        status = own or self.upstreams_answer()
        self.run_lua("yes", permit, status, "" if own else "3")
        return status, None

    def run_lua(self, *arguments):
        done = subprocess.run(["lua5.1", "-", self.lua, *map(str, arguments)], input=LUA_HANDLE, capture_output=True,
                              text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        if done.stdout:
            method, path, host, body = done.stdout.rstrip("\n").split("\t")
            sent = [("Host", host), ("content-length", str(len(body))), ("x-forwarded-for", "10.0.0.1")]
            try:
                with Wire(self.address, 1) as wire:
                    answer = wire.ask(method, path, sent, body)
                assert answer.status == 200, answer
            except (OSError, Closed):
                pass  # Envoy does not wait for the answer


class Traefik(Gateway):
    def __init__(self, address, upstream, directory, reports):
        super().__init__(address, upstream)
        static = yaml.safe_load(text_of("traefik", "traefik.yaml"))
        http = yaml.safe_load(text_of("traefik", "breakerd.yaml"))["http"]
        assert static["ping"]["manualRouting"] is True
        self.fields = static["accessLog"]["fields"]
        assert self.fields["defaultMode"] == self.fields["headers"]["defaultMode"] == "drop"
        self.auth = http["middlewares"][http["routers"]["orders"]["middlewares"][0]]["forwardAuth"]
        assert self.auth["authResponseHeaders"] == ["Breakerd-Permit"] and self.auth["trustForwardHeader"] is False
        asked = static["entryPoints"]["breakerd"]["address"]
        assert self.auth["address"].startswith(f"http://{asked}/v1/check-503/")
        self.path = self.auth["address"].partition(asked)[2]
        failover = http["services"][http["routers"]["breakerd"]["service"]]["failover"]
        assert failover["fallback"] == "ping@internal"
        self.trouble = [tuple(map(int, r.split("-"))) for r in failover["errors"]["status"]]
        assert http["services"][failover["service"]]["loadBalancer"]["passHostHeader"] is False
        timeouts = http["serversTransports"]["breakerd"]["forwardingTimeouts"]
        self.timeout = int(timeouts["responseHeaderTimeout"].removesuffix("ms")) / 1000
        self.log = os.path.join(directory, "access.log")
        with open(self.log, "wb"):
            pass
        program = os.path.join(directory, "report.jq")
        with open(program, "w", encoding="utf-8") as file:
            file.write(text_of("traefik", "report.jq"))
        script = changed(text_of("traefik", "report"), {
            "/var/log/traefik/breakerd.log": self.log, "/etc/traefik/report.jq": program, "-n 0": "-n +1",
            "8514": reports.rpartition(":")[2]})
        self.report = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       start_new_session=True)

    def check(self, given, method, uri):
        """The daemon's answer to the sub-request, or None where the service `failover` answers instead."""
        names = [n for n in self.auth["authRequestHeaders"] if n in given]
        sent = [("Host", "%s:%d" % self.address), *((n, given[n]) for n in names), ("X-Forwarded-For", "10.0.0.1, 127.0.0.1"),
                ("X-Forwarded-Method", method), ("X-Forwarded-Uri", uri), ("X-Forwarded-Host", "127.0.0.1:8748"), ("X-Forwarded-Port", "8748"), ("X-Forwarded-Proto", "http"),
                ("X-Forwarded-Server", "gateway"), ("X-Real-Ip", "127.0.0.1"), ("Accept-Encoding", "gzip")]
        answer = self.exchange("GET", self.path, sent, self.timeout)
        status = answer.status if answer else 502
        return None if any(low <= status <= high for low, high in self.trouble) else answer

    def ask(self, method="GET", path="/", headers=(), own=None):
        answer = self.check(dict(headers), method, path)
        if answer and answer.status >= 300:
            self.write({"RouterName": "orders@file", "OriginStatus": 0, "DownstreamStatus": answer.status}, headers)
            return answer.status, answer.header("Retry-After")
        status = own or self.upstreams_answer()
        permit = answer and answer.header("Breakerd-Permit")
        headers = {n: v for n, v in dict(headers).items() if n.title() != "Breakerd-Permit"}
        self.write({"RouterName": "orders@file", "OriginStatus": status, "DownstreamStatus": status,
                    "RequestPath": "/?circuit=other", **({} if own else {"origin_Date": "Thu, 26 Nov 2026 20:44:02 GMT"})},
                   {**headers, **({"Breakerd-Permit": permit} if permit else {})})
        return status, None

    def write(self, core, headers):
        kept = {n: v for n, v in core.items() if n in self.fields["names"] or n.startswith("origin_")}
        for name, value in dict(headers).items():
            if name.title() in self.fields["headers"]["names"]:
                kept[f"request_{name.title()}"] = value
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps({**kept, "level": "info", "msg": "", "time": "2026-11-26T20:44:02Z"}) + "\n")

    def stop(self):
        os.killpg(self.report.pid, signal.SIGKILL)
        self.report.wait()
