# shellcheck shell=bash disable=SC2016 # the scripts in single quotes are for the shell inside
# Trees of a Debian release, for tests that need another release or a clean one; to be sourced.
# Needs root, debootstrap and this machine's access to a Debian mirror.
#
# DEB_ROOTS: where clean trees are kept for the next time; default breakerd-trees in
# $XDG_CACHE_HOME or /var/cache.
tree_roots=${DEB_ROOTS:-${XDG_CACHE_HOME:-/var/cache}/breakerd-trees}

# A kept tree is made anew after so many days.
tree_days=30

# Runs a script of bash in a tree, with /proc, /dev and processes of its own, which end with it.
# tree_run TREE [offline] SCRIPT; `offline`: without a network too, but for the loopback interface.
# CI and ALL_CLIENTS are handed on.
tree_run() {
	local tree=$1 net=()
	shift
	if [ "$1" = offline ]; then
		net=(--net)
		shift
	fi
	unshare --mount --pid --fork --kill-child "${net[@]}" bash -euc '
		tree=$1 script=$2
		mount -t proc proc "$tree/proc"
		mount --rbind /dev "$tree/dev"
		ip link set lo up 2>/dev/null || true
		exec chroot "$tree" env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
			${CI:+CI="$CI"} ${ALL_CLIENTS:+ALL_CLIENTS="$ALL_CLIENTS"} \
			NODE_EXTRA_CA_CERTS=/etc/machine-ca.crt \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			bash -euo pipefail -c "$script"' _ "$tree" "$1" </dev/null
}

# Boots a tree's systemd, without a network but for the loopback interface; what it starts may not be up yet.
tree_boot() {
	tree_booting=$1
	unshare --mount --pid --fork --net --uts --ipc --cgroup --kill-child tests/deb/boot-tree "$1" </dev/null &
	tree_booted_by=$!
	disown
	for _ in $(seq 300); do
		tree_init >/dev/null && return
		sleep 0.1
	done
	return 1
}

# The pid of the booted tree's systemd. One that is not in its tree yet would be this machine's root.
tree_init() {
	local pid
	pid=$(pgrep -P "$tree_booted_by") && [ "/proc/$pid/root" -ef "$tree_booting" ] && echo "$pid"
}

# Runs a script of bash in the booted tree.
tree_booted() {
	local pid
	pid=$(tree_init) || return
	nsenter --target "$pid" --mount --pid --net --uts --ipc --cgroup --root --wd \
		env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		bash -euo pipefail -c "$1" </dev/null
}

# Ends the booted tree, if there is one, and all that runs there.
tree_halt() {
	while [ -n "${tree_booted_by:-}" ] && kill -KILL "$tree_booted_by" 2>/dev/null; do sleep 0.1; done
}

# True if a kept tree is whole and not too old.
tree_is_good() {
	[ -e "$1.made" ] && [ -z "$(find "$1.made" -mtime "+$tree_days")" ] &&
		tree_run "$1" 'apt-get --version >/dev/null' 2>/dev/null
}

# What a tree needs of this machine to get at packages: its name servers, and the authorities that
# it trusts, which a proxy may have added to.
tree_network() {
	cp /etc/resolv.conf "$1/etc/resolv.conf"
	cat /etc/ssl/certs/ca-certificates.crt >"$1/etc/machine-ca.crt" 2>/dev/null || true
	# debootstrap leaves this to an installer; tests ask for localhost.
	printf "127.0.0.1 localhost\n::1 localhost\n" >"$1/etc/hosts"
}

# Makes a new clean tree of a suite in a directory: tree_make SUITE DIRECTORY.
tree_make() {
	local mirror log=$2.log
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
	rm -rf --one-file-system "$2" "$2.made"
	mkdir -p "$(dirname "$2")"
	debootstrap --variant=minbase "$1" "$2" "$mirror" >"$log" 2>&1 || { tail "$log" >&2; return 1; }
	# No service starts by being installed (invoke-rc.d(8)).
	printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
	chmod 755 "$2/usr/sbin/policy-rc.d"
	rm -f "$log"
	touch "$2.made"
}

# A clean tree of a suite: tree_copy SUITE DIRECTORY.
tree_copy() {
	local base=$tree_roots/$1
	(
		mkdir -p "$tree_roots"
		flock 9
		tree_is_good "$base" || tree_make "$1" "$base"
		tree_network "$base"
		cp -a --one-file-system "$base" "$2"
	) 9>>"$(mkdir -p "$tree_roots" && echo "$tree_roots/$1.lock")"
}

# Copies the sources, without what was built from them, into a directory.
tree_sources() {
	rm -rf "$1"
	mkdir -p "$1"
	tar -c --exclude='./build*' --exclude=./.git --exclude=node_modules --exclude=__pycache__ . | tar -x -C "$1"
}
