-- http-request lua.breakerd KEY: sets txn.breakerd_permit, or txn.breakerd_refused to Retry-After.
-- Trouble with breakerd sets neither: the request passes.
core.register_action("breakerd", { "http-req" }, function(txn, key)
	local answer = core.httpclient():get { url = "http://localhost/v1/check/" .. key, dst = "abns@breakerd" }
	local function header(name)
		local values = answer.headers and answer.headers[name]
		return values and values[0] or nil
	end
	if answer.status == 200 then
		txn:set_var("txn.breakerd_permit", header("breakerd-permit") or "-")
	elseif answer.status == 403 then
		txn:set_var("txn.breakerd_refused", header("retry-after") or "1")
	end
end, 1)
