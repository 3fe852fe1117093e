# A report from a line of Traefik's access log; nothing for what did not reach the upstream.
# An end user who leaves is 499. 500 without the Date of an upstream is Traefik's own, for a malformed body.
fromjson?
| select(.RouterName == "orders@file" and .OriginStatus > 0)
| (if .OriginStatus == 499 or (.OriginStatus == 500 and (has("origin_Date") | not)) then "-"
   else .OriginStatus end) as $status
| "circuit=orders permit=\(.["request_Breakerd-Permit"] // "-") status=\($status)"
