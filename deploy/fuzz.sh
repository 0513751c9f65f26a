#!/usr/bin/env bash
# fuzz.sh EXECUTIONS MINUTES [TARGET]
#
# Runs every fuzz target of all modules here, or those whose names match TARGET
# (an extended regular expression), with EXECUTIONS in total, the same for each,
# in MINUTES. Fails below. What is counted is what go's fuzzer says it executed.
#
# The tests already run the kept inputs in testdata/fuzz; this looks beyond them.
# An input that fails is written there: commit it with the fix. What else was
# found stays in GOCACHE/fuzz: deploy/corpus.sh keeps the few of it that matter.
set -euo pipefail
cd "$(dirname "$0")/.."
goal=${1:?fuzz.sh EXECUTIONS MINUTES} end=$((SECONDS + 60 * ${2:?fuzz.sh EXECUTIONS MINUTES}))

mapfile -t targets < <(deploy/fuzz-targets.sh "${3:-.}")
if [ ${#targets[@]} = 0 ]; then
	echo "no fuzz targets" >&2
	exit 1
fi
each=$(((goal + ${#targets[@]} - 1) / ${#targets[@]}))

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
cache=$(go env GOCACHE)/fuzz
root=$PWD total=0 failed= built=

# fuzz DIR NAME runs one target. When the time is over it stops early, and what it counts will be too little.
fuzz() {
	local left=$((end - SECONDS)) code=0
	(cd "$1" && timeout -s INT -k 30 "$((left > 1 ? left : 1))" "$bin/fuzz.test" -test.run='^$' -test.fuzz="^$2\$" \
		-test.fuzztime="${each}x" -test.fuzzminimizetime=1000x -test.fuzzcachedir="$cache/${1#"$root"/}") </dev/null >"$bin/out" 2>&1 || code=$?
	[ $code = 0 ] || { [ $code = 124 ] && [ "$(tail -n 1 "$bin/out")" = PASS ]; }
}

# own says that go's fuzzer fell over a deadline of its own, and no input failed.
own() {
	grep -q '^ *context deadline exceeded$' "$bin/out" && ! grep -q 'Failing input' "$bin/out" && [ "$(inputs "$@")" = "$before" ]
}
inputs() { { ls -A "$1/testdata/fuzz/$2" 2>/dev/null || true; } | wc -l; }

for target in "${targets[@]}"; do
	read -r dir name <<<"$target"
	# One binary a package: linking each target anew takes longer than its time here.
	if [ "$built" != "$dir" ]; then
		(cd "$dir" && go test -c -vet=off -fuzz=. -o "$bin/fuzz.test" .)
		built=$dir
	fi
	start=$SECONDS before=$(inputs "$dir" "$name") again=
	if ! fuzz "$dir" "$name"; then
		if own "$dir" "$name" && again=", again: the fuzzer fell over its own deadline" && fuzz "$dir" "$name"; then
			:
		else
			cat "$bin/out"
			failed="$failed $name"
		fi
	fi
	n=$(sed -nE 's/.* execs: ([0-9]+) .*/\1/p' "$bin/out" | tail -n 1)
	total=$((total + ${n:-0}))
	echo "fuzz ${dir#"$root"/} $name: ${n:-0} executions, $((SECONDS - start)) s$again"
done
echo "fuzzed ${#targets[@]} targets: $total executions, the goal is $goal"
if [ -n "$failed" ]; then
	echo "fuzz FAILED:$failed" >&2
	exit 1
fi
if [ "$total" -lt "$goal" ]; then
	echo "fuzz FAILED: too few executions in $2 minutes" >&2
	exit 1
fi
