#!/bin/sh
# The program through which test_clients.py drives the shell functions: driver.sh FILE; see driver.py.
# shellcheck disable=SC2034,SC2154 # the client's variables
set -u
# shellcheck source=/dev/null
. "$1"

messages=0 last=''
note() {
	messages=$((messages + 1)) last=$1
}
BREAKER_LOG=note

make() {
	unset BREAKER_URL BREAKER_TOKEN BREAKER_TIMEOUT_MS BREAKER_RETRY_AFTER_TROUBLE_MS
	messages=0 last=''
	[ "$1" = - ] || BREAKER_URL=$1
	[ "$2" = - ] || BREAKER_TOKEN=$2
	[ "$3" = - ] || BREAKER_TIMEOUT_MS=$3
	[ "$4" = - ] || BREAKER_RETRY_AFTER_TROUBLE_MS=$4
	if why=$(breaker_init 2>&1); then
		breaker_init
		echo made
	else
		echo "refused: $why"
	fi
}

try() {
	case $1 in
	ok) return 0 ;;
	fail) return 3 ;;
	*) breaker_outcome=$1 ;;
	esac
}

run() {
	breaker_run "$1" try "$2"
	case $? in
	0) answer=passed ;;
	3) answer=failed ;;
	75) answer="refused $breaker_reason $breaker_retry_after_ms" ;;
	*) answer="unexpected" ;;
	esac
}

many() {
	passed=0 waited=0 n=$1
	while [ "$n" -gt 0 ]; do
		breaker_clock
		began=$breaker_now
		run "$2" ok
		[ "$answer" = passed ] && passed=$((passed + 1))
		breaker_clock
		[ $((breaker_now - began)) -ge 250 ] && waited=$((waited + 1))
		n=$((n - 1))
	done
	echo "$passed passed ($waited waited)"
}

tab=$(printf '\t')
while IFS=$tab read -r command one two three four; do
	case $command in
	new) make "$one" "$two" "$three" "$four" ;;
	acquire)
		breaker_acquire "$one" && answer=allowed || answer=refused
		[ "$breaker_unreachable" = yes ] && answered=unreachable || answered=answered
		echo "$answer ${breaker_permit:--} ${breaker_state:--} ${breaker_reason:--} $breaker_retry_after_ms $answered"
		;;
	report)
		[ "$two" = - ] && two=''
		[ "$four" = - ] && four=''
		if breaker_report "$one" "$two" "$three" "$four"; then echo counted; else echo not counted; fi
		;;
	run)
		run "$one" "$two"
		echo "$answer"
		;;
	many) many "$one" "$two" ;;
	log) echo "$messages $last" ;;
	esac
done
