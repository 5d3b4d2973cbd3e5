#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# as-user.sh FOLDER COMMAND…: runs a command as a user without any rights, who finds what root has built already at the
# same places, and may add to it in layers below FOLDER. Nothing of root's own is changed. Everything is in the calling
# process's own mount namespace: start it by `unshare -m`.
set -eu
folder=$1
shift
user=54321
checkout=$(go list -m -f '{{.Dir}}' isthmus.dev/isthmus)
modules=$(go env GOMODCACHE) builds=$(go env GOCACHE) cache=${ISTHMUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus}
export GOFLAGS GOPROXY GOMODCACHE=$modules GOCACHE=$builds ISTHMUS_CACHE=$cache GOTOOLCHAIN=local
GOFLAGS=$(go env GOFLAGS) GOPROXY=$(go env GOPROXY)

mkdir -p "$folder"/{home,lab} "$folder"/{checkout,modules,builds,cache}/{below,over,work}
for what in checkout modules builds cache; do mount --bind "${!what}" "$folder/$what/below"; done
# root's home is closed to others, and would be in the way; what is needed of it appears in an empty one.
mount -t tmpfs -o mode=755 tmpfs "$HOME"
for what in checkout modules; do
	mkdir -p "${!what}"
	mount --bind "$folder/$what/below" "${!what}"
done
for what in builds cache; do
	mkdir -p "${!what}"
	mount -t overlay overlay -o "lowerdir=$folder/$what/below,upperdir=$folder/$what/over,workdir=$folder/$what/work" "${!what}"
done
chmod 755 "$folder"
chown $user:$user "$folder"/{home,lab} "$builds" "$builds"/* "$cache" "$cache"/{tools,programs} "$cache"/programs/* "$cache"/tools/.*.lock

export HOME=$folder/home
cd "$checkout"
exec setpriv --reuid $user --regid $user --clear-groups "$@"
