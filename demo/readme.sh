#!/usr/bin/env bash
# Types what the section "Five minutes by hand" of README.md tells a newcomer
# to type, in an empty folder with the commands that lie in bin/, so that it
# cannot go stale. Fails when a line of it does.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v curl >/dev/null; then
	echo "NOT RUN: readme: no curl"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$PWD/bin" "$work/bin"
echo 'trap "kill \$(jobs -p) 2>/dev/null || true; wait" EXIT' >"$work/typed"
awk '/^## /{ here = $0 == "## Five minutes by hand" } here && /^```/{ code = !code; next } here && code' README.md |
	grep -v '^make build$' >>"$work/typed"
grep -q 'bin/verifier proof' "$work/typed"
cd "$work"
timeout 120 bash -euxo pipefail typed
grep -q '"kind":"audit.note"' entry.json
echo "readme: every line of it works"
