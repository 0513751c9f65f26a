#!/usr/bin/env bash
# Types what the section "Five minutes by hand" of README.md tells a newcomer
# to type, and all that docs/clients/README.md does, each in an empty folder with
# the commands that lie in bin/, so that they cannot go stale. Fails when a line of
# them does.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v curl >/dev/null; then
	echo "NOT RUN: readme: no curl"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# typed NAME: types the commands on its input in a folder of that name.
typed() {
	mkdir "$work/$1"
	ln -s "$PWD/bin" "$PWD/docs" "$work/$1"
	{
		echo 'trap "kill \$(jobs -p) 2>/dev/null || true; wait" EXIT'
		cat
	} >"$work/$1/typed"
	grep -q 'bin/verifier proof' "$work/$1/typed"
	(cd "$work/$1" && timeout 120 bash -euxo pipefail typed)
}

awk '/^## /{ here = $0 == "## Five minutes by hand" } here && /^```/{ code = !code; next } here && code' README.md |
	grep -v '^make build$' | typed readme
grep -q '"kind":"audit.note"' "$work/readme/entry.json"
echo "readme: every line of it works"

for command in openssl python3; do
	if ! command -v $command >/dev/null; then
		echo "NOT RUN: clients: no $command"
		exit 0
	fi
done
awk '/^```/{ code = !code; next } code' docs/clients/README.md | typed clients
grep -q '"kind":"x.note"' "$work/clients/entry.json"
echo "clients: every line of docs/clients/README.md works"
