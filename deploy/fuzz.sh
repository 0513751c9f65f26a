#!/usr/bin/env bash
# fuzz.sh -total SECONDS | -each DURATION
#
# Runs every fuzz target of this module for DURATION, or all of them within
# about SECONDS (1 to 5 s each; building comes on top). The tests already run
# the seeds; this looks beyond them. An input that fails is written to the
# package's testdata/fuzz: commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

list() {
	go list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$d}}/{{.}}
{{end}}' ./... | while read -r file; do
		if [ -n "$file" ]; then
			sed -nE "s#^func (Fuzz[A-Za-z0-9_]*)\(.*#$(dirname "$file") \1#p" "$file"
		fi
	done
}

targets=$(list)
if [ -z "$targets" ]; then
	echo "no fuzz targets" >&2
	exit 1
fi
n=$(wc -l <<<"$targets")
case "$1" in
-total)
	each=$(($2 / n))
	each=$((each < 1 ? 1 : each > 5 ? 5 : each))s
	;;
-each) each=$2 ;;
*)
	echo "usage: fuzz.sh -total SECONDS | -each DURATION" >&2
	exit 2
	;;
esac

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
cache=$(go env GOCACHE)/fuzz
failed=
built=
while read -r dir name; do
	# One binary a package: linking each target anew takes longer than its time here.
	if [ "$built" != "$dir" ]; then
		(cd "$dir" && go test -c -vet=off -fuzz=. -o "$bin/fuzz.test" .)
		built=$dir
	fi
	echo "fuzz ${dir#"$PWD"/} $name for $each"
	args=(-test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="$each" -test.fuzzminimizetime=5s -test.fuzzcachedir="$cache/${dir#"$PWD"/}")
	fuzz() { (cd "$dir" && "$bin/fuzz.test" "${args[@]}" </dev/null >"$bin/out" 2>&1); }
	# At the end of its time go's fuzzer now and then takes its own deadline for a failure, without an input that fails.
	if ! fuzz && ! { ! grep -q 'Failing input' "$bin/out" && grep -q '^ *context deadline exceeded$' "$bin/out" && echo "again: the fuzzer fell over its own deadline" && fuzz; }; then
		cat "$bin/out"
		failed="$failed $name"
	fi
done <<<"$targets"
echo "fuzzed $n targets"
if [ -n "$failed" ]; then
	echo "fuzz FAILED:$failed" >&2
	exit 1
fi
