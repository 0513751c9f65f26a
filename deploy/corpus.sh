#!/usr/bin/env bash
# corpus.sh [TARGET]
#
# Adds to the inputs that are kept in each package's testdata/fuzz those of what
# fuzz.sh has found that matter: the smallest ones that together cover what no
# kept one does, in blocks of the package and of log. What is committed stays: it
# may have failed once. Run this after a long "make fuzz", and commit what is new.
set -euo pipefail
cd "$(dirname "$0")/.."
most=4096 # bytes of an input

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$PWD cache=$(go env GOCACHE)/fuzz built=

deploy/fuzz-targets.sh "${1:-.}" | while read -r dir name; do
	if [ "$built" != "$dir" ]; then
		(cd "$dir" && go test -c -vet=off -cover -coverpkg=.,github.com/pipe-roll/piperoll/log -o "$work/fuzz.test" .)
		built=$dir
	fi
	kept=$dir/testdata/fuzz/$name
	mkdir -p "$kept"
	find "$cache/${dir#"$root"/}/$name" -type f -size -"$((most + 1))"c -exec cp -n {} "$kept" \; 2>/dev/null || true
	rm -rf "$work/blocks" && mkdir "$work/blocks"
	for input in "$kept"/*; do
		if ! (cd "$dir" && "$work/fuzz.test" -test.run="^$name\$/^${input##*/}\$" -test.coverprofile="$work/profile" </dev/null >"$work/out" 2>&1); then
			cat "$work/out"
			echo "$input fails" >&2
			exit 1
		fi
		awk 'NR > 1 && $NF > 0 { print $1 }' "$work/profile" | sort -u >"$work/blocks/${input##*/}"
	done
	before=$(ls "$kept" | wc -l)
	# What is committed, and then from the smallest to the largest each with a block that none before it has; then back,
	# without those that the others cover.
	git ls-files "$kept" | sed 's#.*/##' >"$work/committed"
	{
		cat "$work/committed"
		find "$kept" -type f -printf '%s %f\n' | sort -n | cut -d ' ' -f 2 | grep -vxFf "$work/committed" || true
	} | awk -v dir="$work/blocks/" -v committed="$(wc -l <"$work/committed")" '
		{
			fresh = 0
			while ((getline block < (dir $0)) > 0) { of[$0] = of[$0] " " block; if (!(block in seen)) { seen[block]; fresh = 1 } }
			if (fresh || NR <= committed) { order[++n] = $0; k = split(of[$0], b, " "); for (j = 1; j <= k; j++) times[b[j]]++ }
		}
		END {
			for (i = n; i > 0; i--) {
				k = split(of[order[i]], b, " "); alone = i <= committed
				for (j = 1; j <= k; j++) if (times[b[j]] == 1) alone = 1
				if (alone) print order[i]; else for (j = 1; j <= k; j++) times[b[j]]--
			}
		}' | sort >"$work/keep"
	ls "$kept" | sort | comm -23 - "$work/keep" | (cd "$kept" && xargs -r rm --)
	echo "corpus ${dir#"$root"/} $name: kept $(wc -l <"$work/keep") of $before"
done
