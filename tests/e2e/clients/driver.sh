#!/bin/sh
set -u
# shellcheck source=/dev/null
. "$(dirname "$0")/../../../docs/clients/breaker.sh"

export BREAKER_URL="$1" BREAKER_THRESHOLD="$3" BREAKER_OPEN_MS="$4" BREAKER_TOKEN="$5"
BREAKER_TIMEOUT=$(printf %04d "$6" | sed 's/...$/.&/')
export BREAKER_TIMEOUT
key=$2
while read -r word permit outcome; do
	if [ "$word" = enter ]; then
		breaker_enter "$key"
	else
		[ "$outcome" = ok ] && outcome=yes
		breaker_leave "$key" "$permit" "$outcome"
		echo 'done'
	fi
done
