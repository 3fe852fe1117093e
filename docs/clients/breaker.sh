# shellcheck shell=sh
# A circuit breaker whose state many programs share through breakerd. POSIX sh, curl, sed, od.
#
#	. ./breaker.sh
#	permit=$(breaker_enter orders)
#	[ "$permit" = open ] && exit 75              # do not bother the upstream
#	if ask_the_upstream; then ok=yes; else ok=no; fi
#	breaker_leave orders "$permit" "$ok"
#
# When breakerd does not answer, everything is let through. Each call of curl is a connection of
# its own: this is for scripts and cron jobs, not for a gateway's every request.

: "${BREAKER_URL:=http://127.0.0.1:8747}" # BREAKER_TOKEN: of breakerd's token_file
: "${BREAKER_THRESHOLD:=5}" "${BREAKER_OPEN_MS:=30000}" "${BREAKER_TIMEOUT:=0.3}" # the last in seconds

# breaker_ask KEY [VERB [BODY]]: prints the circuit. 1: it was no longer in the state "from";
# 2: no answer. Without a verb it is a GET.
breaker_ask() {
	breaker_path=$(printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g')
	breaker_answer=$(curl -sS --path-as-is --noproxy '*' --max-time "$BREAKER_TIMEOUT" -w '\n%{http_code}' \
		${BREAKER_TOKEN:+-H "Authorization: Bearer $BREAKER_TOKEN"} ${2+--data "${3-}"} \
		"$BREAKER_URL/v1/circuits/$breaker_path${2:+/$2}") || return 2
	case $breaker_answer in
	*[!0-9]200) printf '%s\n' "${breaker_answer%???}" ;;
	*[!0-9]409) return 1 ;;
	*) printf 'breakerd: %s\n' "$breaker_answer" >&2; return 2 ;;
	esac
}

# breaker_field NAME: a member of the circuit on standard input
breaker_field() {
	sed -n 's/.*"'"$1"'":"\{0,1\}\([a-z0-9-]*\).*/\1/p'
}

# breaker_move KEY FROM TO
breaker_move() {
	breaker_ask "$1" transition "{\"from\":\"$2\",\"to\":\"$3\"}" >/dev/null
}

# breaker_enter KEY: prints closed: go; half-open: go, you are the probe; unknown: go, breakerd
# did not answer; open: do not go.
breaker_enter() {
	breaker_circuit=$(breaker_ask "$1") || { echo unknown; return; }
	breaker_state=$(printf %s "$breaker_circuit" | breaker_field state)
	breaker_since=$(printf %s "$breaker_circuit" | breaker_field lastStateChange)
	[ "$breaker_state" = closed ] && { echo closed; return; }
	# date has seconds only, where it is not GNU's.
	breaker_now=$(date +%s%3N); case $breaker_now in *[!0-9]*) breaker_now=$(date +%s)000 ;; esac
	[ $((breaker_now - breaker_since)) -lt "$BREAKER_OPEN_MS" ] && { echo open; return; }
	if [ "$breaker_state" = half-open ]; then # whoever probed never came back
		breaker_move "$1" half-open open
		echo open
		return
	fi
	breaker_move "$1" open half-open # of all, one
	case $? in 0) echo half-open ;; 1) echo open ;; *) echo unknown ;; esac
}

# breaker_leave KEY PERMIT yes|no: how went what breaker_enter gave the permit for
breaker_leave() {
	case $2 in closed | half-open) ;; *) return 0 ;; esac
	[ "$3" = yes ] && breaker_verb=success || breaker_verb=failure
	breaker_circuit=$(breaker_ask "$1" "$breaker_verb" '')
	if [ "$2" = half-open ]; then
		[ "$3" = yes ] && breaker_to=closed || breaker_to=open
		breaker_move "$1" half-open "$breaker_to"
	elif [ "$3" != yes ]; then
		breaker_count=$(printf %s "$breaker_circuit" | breaker_field failureCount)
		[ "${breaker_count:-0}" -lt "$BREAKER_THRESHOLD" ] || breaker_move "$1" closed open
	fi
	return 0
}
