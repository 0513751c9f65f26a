#!/usr/bin/env bash
# fuzz-targets.sh TARGET
#
# Lists the fuzz targets of all modules here whose names match TARGET, as
# "folder name", by folder.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -roE --include='*_test.go' --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*\(' . |
	sed -E "s#^\./(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(#$PWD/\1 \2#" | LC_ALL=C sort | grep -E " ($1)"
