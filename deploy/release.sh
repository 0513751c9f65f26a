#!/usr/bin/env bash
# release.sh DIR OS/ARCH...
#
# Builds the verifier for each platform into DIR, static and without any trace
# of this machine, with SHA256SUMS. Then it builds everything again from a copy
# of the sources in another place with an empty cache, and fails unless every
# byte is the same: whoever has this Go release and this commit can do it too.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
shift
# What the toolchain would take from the environment is set here.
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOFIPS140=off GOTOOLCHAIN=local GOFLAGS='' GOWORK=off

# build DIR PLATFORM...: into DIR, from the module in the current folder.
build() {
	local dir=$1 platform name
	shift
	for platform in "$@"; do
		name=verifier-${platform%/*}-${platform#*/}
		if [ "${platform%/*}" = windows ]; then
			name=$name.exe
		fi
		GOOS=${platform%/*} GOARCH=${platform#*/} \
			go build -trimpath -buildvcs=false -ldflags=-buildid= -o "$dir/$name" ./cmd/verifier
	done
}

rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
build "$out" "$@"
(cd "$out" && sha256sum verifier-* >SHA256SUMS)

again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
mkdir "$again/src" "$again/out" "$again/cache"
cp go.mod go.sum "$again/src/"
go list -deps -f '{{if .Module}}{{if .Module.Main}}{{.ImportPath}} {{.Module.Path}}{{end}}{{end}}' ./cmd/verifier |
	while read -r pkg module; do
		dir=${pkg#"$module"/}
		mkdir -p "$again/src/$dir"
		find "$dir" -maxdepth 1 -type f -exec cp {} "$again/src/$dir/" \;
	done
(cd "$again/src" && export GOCACHE=$again/cache && build "$again/out" "$@")
(cd "$again/out" && sha256sum --quiet -c "$out/SHA256SUMS")

# The licences of what is linked ask to go with the binaries.
{
	cat LICENSE NOTICE
	printf '\n==== The Go standard library\n'
	cat "$(go env GOROOT)/LICENSE"
	go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/verifier | sort -u |
		while read -r module version dir; do
			printf '\n==== %s %s\n' "$module" "$version"
			cat "$dir/LICENSE"
		done
} >"$out/LICENSES"

{
	go version
	echo "commit $(git rev-parse HEAD 2>/dev/null || echo unknown)"
} >"$out/BUILT"
cat "$out/SHA256SUMS"
echo "$# platforms, twice the same bytes -> $out"
