# shellcheck shell=bash disable=SC2016 # the scripts in single quotes are for the shell inside
# Functions for trees of a Debian release, for tests that need another release or a clean system; to be sourced.
# Needs root, debootstrap and this machine's access to a Debian mirror.
#
# DEB_ROOTS: where clean trees are kept; default breakerd-trees in $XDG_CACHE_HOME or /var/cache.
tree_roots=${DEB_ROOTS:-${XDG_CACHE_HOME:-/var/cache}/breakerd-trees}

# A kept tree is made anew after this many days.
tree_days=30

# tree_run TREE [offline] SCRIPT: runs a bash script in a tree, in a process namespace of its own, which ends with the
# script. `offline`: with the loopback interface only. CI and ALL_CLIENTS are passed on.
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

# Boots a tree's systemd, with the loopback interface only. Does not wait for its services.
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

# The pid of the booted tree's systemd; fails while its root is still that of this machine.
tree_init() {
	local pid
	pid=$(pgrep -P "$tree_booted_by") && [ "/proc/$pid/root" -ef "$tree_booting" ] && echo "$pid"
}

# Runs a bash script in the booted tree.
tree_booted() {
	local pid
	pid=$(tree_init) || return
	nsenter --target "$pid" --mount --pid --net --uts --ipc --cgroup --root --wd \
		env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		bash -euo pipefail -c "$1" </dev/null
}

# Ends all processes of the booted tree, if there is one.
tree_halt() {
	while [ -n "${tree_booted_by:-}" ] && kill -KILL "$tree_booted_by" 2>/dev/null; do sleep 0.1; done
}

# True if a kept tree works and is not too old.
tree_is_good() {
	[ -e "$1.made" ] && [ -z "$(find "$1.made" -mtime "+$tree_days")" ] &&
		tree_run "$1" 'apt-get --version >/dev/null' 2>/dev/null
}

# Copies what a tree needs to fetch packages: this machine's name servers, and the certificate authorities that it
# trusts, which may include a proxy's.
tree_network() {
	cp /etc/resolv.conf "$1/etc/resolv.conf"
	cat /etc/ssl/certs/ca-certificates.crt >"$1/etc/machine-ca.crt" 2>/dev/null || true
	# debootstrap writes no /etc/hosts; tests look up localhost.
	printf "127.0.0.1 localhost\n::1 localhost\n" >"$1/etc/hosts"
}

# tree_make SUITE DIRECTORY: makes a new clean tree.
tree_make() {
	local mirror log=$2.log
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
	rm -rf --one-file-system "$2" "$2.made"
	mkdir -p "$(dirname "$2")"
	debootstrap --variant=minbase "$1" "$2" "$mirror" >"$log" 2>&1 || { tail "$log" >&2; return 1; }
	# Installing a package must not start its service (invoke-rc.d(8)).
	printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
	chmod 755 "$2/usr/sbin/policy-rc.d"
	rm -f "$log"
	touch "$2.made"
}

# tree_copy SUITE DIRECTORY: copies the kept clean tree, which is made first if need be.
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

# Copies the sources, without anything that was built, into a directory.
tree_sources() {
	rm -rf "$1"
	mkdir -p "$1"
	tar -c --exclude='./build*' --exclude=./.git --exclude=node_modules --exclude=__pycache__ . | tar -x -C "$1"
}
