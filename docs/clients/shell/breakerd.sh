# shellcheck shell=sh
# Asks breakerd, the circuit-breaker sidecar, before a command that needs an upstream, and reports the outcome after it.
# POSIX sh, curl 7.75, awk, od, sed.
#
#	. ./breakerd.sh
#	breaker_init || exit
#	breaker_run orders ask_the_upstream         # its exit status; 75 if it did not run
#
# Settings, to be set before breaker_init, each with its default:
#	BREAKER_URL                     http://127.0.0.1:8747; http://HOST[:PORT][/PATH], unix:/PATH, http+unix://%2FPATH
#	BREAKER_TOKEN                   none; a line of breakerd's token_file
#	BREAKER_TIMEOUT_MS              300; for a whole exchange
#	BREAKER_RETRY_AFTER_TROUBLE_MS  1000; for this long after breakerd did not answer, requests pass without asking it
#	BREAKER_LOG                     none; a command that gets a text, at most every 10 s; none: standard error
#
# When breakerd does not answer, every request passes. The functions keep their state in variables: in a subshell, $(...)
# or a pipe, changes are lost. Each exchange takes a process and a connection: for scripts and cron jobs, not for a gateway.

# shellcheck disable=SC2034 # read by the tests of packages
BREAKER_VERSION=0.2.0

# breaker_init: checks the settings. 2, and a line on standard error, if one is invalid.
breaker_init() {
	: "${BREAKER_URL:=http://127.0.0.1:8747}" "${BREAKER_TIMEOUT_MS:=300}" "${BREAKER_RETRY_AFTER_TROUBLE_MS:=1000}"
	breaker_ready='' breaker_retry_at=0 breaker_log_at=0 breaker_socket='' breaker_permit=''
	breaker_split_url || {
		echo 'BREAKER_URL must be http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH' \
			'(https is not spoken: breakerd has no TLS)' >&2
		return 2
	}
	case ${BREAKER_TOKEN-} in
	*[!!-~]*)
		echo 'BREAKER_TOKEN must be printable ASCII without spaces' >&2
		return 2
		;;
	esac
	case $BREAKER_TIMEOUT_MS/$BREAKER_RETRY_AFTER_TROUBLE_MS in
	0/* | /* | */ | *[!0-9/]*)
		echo 'BREAKER_TIMEOUT_MS must be above 0, BREAKER_RETRY_AFTER_TROUBLE_MS not below 0' >&2
		return 2
		;;
	esac
	breaker_ready=yes
}

# breaker_acquire KEY: 0 if a request may go to the upstream, else 1. Sets breaker_permit, breaker_state, breaker_reason,
# breaker_retry_after_ms, and breaker_unreachable, which is yes if breakerd did not decide and the request may pass.
breaker_acquire() {
	breaker_permit='' breaker_state='' breaker_reason=unreachable breaker_retry_after_ms=0 breaker_unreachable=yes
	breaker_ask "$1" acquire '' || return 0
	case $breaker_allowed in true | false) ;; *) breaker_trouble 'this was answered by something that is not breakerd'; return 0 ;; esac
	breaker_retry_at=0 breaker_unreachable=no breaker_permit=$breaker_got_permit breaker_state=$breaker_got_state
	breaker_reason=$breaker_got_reason breaker_retry_after_ms=$breaker_got_after
	[ "$breaker_allowed" = true ]
}

# breaker_report KEY PERMIT OUTCOME [MS]: reports a request. OUTCOME is success, failure, ignored, or the upstream's
# status (0: no answer came). PERMIT may be empty. 0 if breakerd counted the report.
breaker_report() {
	case $3 in *[!0-9]*) breaker_body="\"outcome\":\"$3\"" ;; *) breaker_body="\"status\":$3" ;; esac
	case $2 in '' | *[!A-Za-z0-9._-]*) ;; *) breaker_body="\"permit\":\"$2\",$breaker_body" ;; esac
	breaker_ask "$1" report "{$breaker_body${4:+,\"durationMs\":$4}}" || return 1
	case $breaker_counted in true | false) ;; *) breaker_trouble 'this was answered by something that is not breakerd'; return 1 ;; esac
	breaker_retry_at=0
	[ "$breaker_counted" = true ]
}

# breaker_run KEY COMMAND...: runs a command between breaker_acquire and breaker_report, and returns its exit status: 0 is
# a success, all others are a failure, unless the command sets breaker_outcome to an outcome or a status. 75 if the
# command was not run.
breaker_run() {
	breaker_acquire "$1" || return 75
	# The command may use these functions itself, so what is needed after it is kept in arguments.
	breaker_clock
	breaker_outcome=''
	breaker_run_admitted "$1" "$breaker_permit" "$breaker_unreachable" "$breaker_now" "$@"
}

breaker_run_admitted() {
	breaker_status=0
	(exit 0) # the command must not see an earlier $?
	breaker_call "$@" || breaker_status=$?
	[ "$3" = no ] || return "$breaker_status"
	if [ -z "$breaker_outcome" ]; then
		[ "$breaker_status" -eq 0 ] && breaker_outcome=success || breaker_outcome=failure
	fi
	breaker_clock
	breaker_report "$1" "$2" "$breaker_outcome" $((breaker_now - $4))
	return "$breaker_status"
}

breaker_call() {
	shift 5
	"$@"
}

# breaker_clock: sets breaker_now, in milliseconds; of the monotonic clock if /proc/uptime has it.
breaker_clock() {
	if [ -r /proc/uptime ]; then
		read -r breaker_now breaker_rest </proc/uptime
		breaker_now=${breaker_now%.*}${breaker_now#*.}0
		breaker_now=${breaker_now#0}
	else
		breaker_now=$(date +%s)000
	fi
}

# breaker_trouble TEXT: begins a pause, because breakerd did not answer as it should.
breaker_trouble() {
	breaker_clock
	breaker_retry_at=$((breaker_now + BREAKER_RETRY_AFTER_TROUBLE_MS))
	breaker_say "$1"
}

breaker_say() {
	[ "$breaker_now" -ge "$breaker_log_at" ] || return 0
	breaker_log_at=$((breaker_now + 10000))
	if [ -n "${BREAKER_LOG-}" ]; then
		"$BREAKER_LOG" "breakerd: $1: requests pass" || :
	else
		echo "breakerd: $1: requests pass" >&2
	fi
}

# breaker_ask KEY VERB BODY: one exchange. 1 unless the answer has status 200.
breaker_ask() {
	[ -n "${breaker_ready-}" ] || breaker_init || return 1
	if [ "$breaker_retry_at" -ne 0 ]; then
		breaker_clock
		[ "$breaker_now" -ge "$breaker_retry_at" ] || return 1
	fi
	breaker_key=$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g; s/%2[eE]/./g')
	breaker_answer=$(breaker_curl "$breaker_base/v1/circuits/$breaker_key/$2" "$3" | head -c 16384)
	# curl writes the last line: HTTP status, exit status, message.
	breaker_last=${breaker_answer##*'
'}
	breaker_http=${breaker_last%% *} breaker_last=${breaker_last#* }
	breaker_error=${breaker_last#* }
	case $breaker_http/${breaker_last%% *} in
	[1-9][0-9][0-9]/0) ;;
	*)
		case $breaker_last in [0-9]*\ *) ;; *) breaker_error='the answer is too long' ;; esac
		breaker_trouble "$breaker_error"
		return 1
		;;
	esac
	breaker_read "${breaker_answer%'
'*}"
	[ "$breaker_http" != 200 ] || return 0
	# A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or concern one circuit.
	if [ "$breaker_http" = 504 ]; then
		breaker_trouble "504 $breaker_detail"
	else
		breaker_retry_at=0
		breaker_clock
		breaker_say "$breaker_http $breaker_detail"
	fi
	return 1
}

# breaker_curl URL BODY: writes the answer, and a line about it. Keeps the token off the command line.
breaker_curl() {
	breaker_seconds=$((BREAKER_TIMEOUT_MS / 1000)).$(printf %03d $((BREAKER_TIMEOUT_MS % 1000)))
	set -- "$1" --request POST --data-raw "$2" --header 'Content-Type: application/json' --silent --path-as-is \
		--globoff --noproxy '*' --max-time "$breaker_seconds" --write-out '\n%{http_code} %{exitcode} %{errormsg}' \
		${breaker_socket:+--unix-socket "$breaker_socket"}
	if [ -n "${BREAKER_TOKEN-}" ]; then
		printf 'header = "Authorization: Bearer %s"\n' "$(printf %s "$BREAKER_TOKEN" | sed 's/[\\"]/\\&/g')" |
			curl --disable --config - "$@"
	else
		curl --disable "$@" </dev/null
	fi
}

# breaker_read JSON: sets variables from the members of an object, nested ones left out.
breaker_read() {
	breaker_allowed='' breaker_got_permit='' breaker_got_state='' breaker_got_reason='' breaker_got_after=0
	breaker_counted='' breaker_detail=''
	breaker_fields=$(printf %s "$1" | awk '
		function fail() { bad = 1; exit }
		{ text = text $0 "\n" }
		END {
			while (!bad && text != "") {
				if (match(text, /^[ \t\r\n]+/)) {
					text = substr(text, RLENGTH + 1)
					continue
				}
				if (!match(text, /^"([^"\\]|\\.)*"/) && !match(text, /^[^ \t\r\n",:{}\[\]]+/) && !match(text, /^[,:{}\[\]]/))
					exit
				token = substr(text, 1, RLENGTH)
				text = substr(text, RLENGTH + 1)
				if (ended || (!depth && token != "{"))
					exit
				if (depth == 1 && token == ":") { name = last; colon = 1 }
				else if (depth == 1 && colon) {
					colon = 0
					if (token !~ /^[{\[]/) value[name] = token
				}
				if (token ~ /^[{\[]$/) depth++
				else if (token ~ /^[}\]]$/) ended = !--depth
				last = token
			}
			if (!ended) exit
			for (name in value)
				if (name ~ /^"[A-Za-z]+"$/ && value[name] ~ /^("[ -~]*"|[a-z0-9.eE+-]+)$/ && value[name] !~ /\\/)
					print substr(name, 2, length(name) - 2) " " value[name]
		}')
	while read -r breaker_name breaker_value; do
		breaker_text=${breaker_value#\"}
		case $breaker_value in \"*) breaker_text=${breaker_text%\"} ;; *) breaker_text='' ;; esac
		case $breaker_name in
		allowed) breaker_allowed=$breaker_value ;;
		counted) breaker_counted=$breaker_value ;;
		permit) breaker_got_permit=$breaker_text ;;
		state) breaker_got_state=$breaker_text ;;
		reason) breaker_got_reason=$breaker_text ;;
		detail) breaker_detail=$breaker_text ;;
		retryAfterMs) case $breaker_value in *[!0-9]*) ;; *) breaker_got_after=$breaker_value ;; esac ;;
		esac
	done <<-END
		$breaker_fields
	END
}

# breaker_split_url: splits BREAKER_URL into breaker_base and breaker_socket. 1 if it is invalid.
breaker_split_url() {
	breaker_path=''
	case $BREAKER_URL in
	unix:/*) breaker_socket=${BREAKER_URL#unix:} ;;
	*[!!-~]*) return 1 ;;
	http+unix://%2[Ff]*)
		breaker_rest=${BREAKER_URL#http+unix://}
		breaker_matches "$breaker_rest" '(T)+(/(T)*)*' || return 1
		case $breaker_rest in *%[01]* | *%7[fF]*) return 1 ;; */*) breaker_path=/${breaker_rest#*/} ;; esac
		breaker_decode "${breaker_rest%%/*}"
		;;
	http://*)
		breaker_rest=${BREAKER_URL#http://}
		breaker_matches "$breaker_rest" '([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/(T)*)*' || return 1
		breaker_base=http://${breaker_rest%%/*}
		case $breaker_rest in */*) breaker_path=/${breaker_rest#*/} ;; esac
		case $breaker_base in
		*:*[0-9]) # a port; of an address in brackets none
			case ${breaker_base##*:} in 0* | 6553[6-9] | 655[4-9]? | 65[6-9]?? | 6[6-9]??? | [7-9]????) return 1 ;; esac
			;;
		esac
		;;
	*) return 1 ;;
	esac
	if [ -n "$breaker_socket" ]; then
		case $breaker_socket in / | *[[:cntrl:]]*) return 1 ;; esac
		[ "$(printf %s "$breaker_socket" | wc -c)" -le 107 ] || return 1
		breaker_base=http://localhost
	fi
	while [ "$breaker_path" != "${breaker_path%/}" ]; do breaker_path=${breaker_path%/}; done
	breaker_base=$breaker_base$breaker_path
}

# breaker_matches TEXT REGEX: 0 if the whole text matches. (T) is a character of a path.
breaker_matches() {
	printf '%s\n' "$1" | LC_ALL=C grep -Eqx "$(printf %s "$2" | sed "s/(T)/([A-Za-z0-9_.~!\$\&'()*+,;=:@-]|%[0-9A-Fa-f]{2})/g")"
}

# breaker_decode TEXT: sets breaker_socket to the text without its escapes.
breaker_decode() {
	breaker_rest=$1
	while [ "$breaker_rest" != "${breaker_rest#*%}" ]; do
		breaker_socket=$breaker_socket${breaker_rest%%\%*}
		breaker_rest=${breaker_rest#*%}
		# shellcheck disable=SC2059 # an octal escape
		breaker_socket=$breaker_socket$(printf "\\$(printf %03o "0x${breaker_rest%"${breaker_rest#??}"}")")
		breaker_rest=${breaker_rest#??}
	done
	breaker_socket=$breaker_socket$breaker_rest
}
