#!/usr/bin/env bash
# The main job, end to end: a log server, a migration service that logs every step
# through the SDK, real OpenLineage events, and an auditor who checks it all offline.
# Needs bash and Go. Leaves demo/out; everything else is made anew and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo/out
work=$(mktemp -d)
pid=
stop() {
	if [ -n "$pid" ]; then kill "$pid" 2>/dev/null && wait "$pid" || true; fi
	pid=
}
trap 'status=$?; stop; if [ $status != 0 ] && [ -f "$work/server.log" ]; then tail -n 20 "$work/server.log" >&2; fi; rm -rf "$work"; exit $status' EXIT
say() { printf '\n== %s\n' "$*"; }

say "build (the first time takes minutes: a database is compiled for the example)"
export GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:--buildvcs=false}"
go build -o bin/logserver ./cmd/logserver
go build -o bin/verifier ./cmd/verifier
go build -C examples/crm -o ../../bin/crm .

say "a new log, and a server on a free port of 127.0.0.1"
rm -rf "$out"
mkdir -p "$out"
bin/logserver init -dir "$work/log" -origin log.example.com/demo -listen 127.0.0.1:0
bin/logserver serve -config "$work/log/config.yaml" 2>"$work/server.log" &
pid=$!
for _ in $(seq 200); do [ -s "$work/log/addr" ] && break; sleep 0.05; done
url=http://$(cat "$work/log/addr")

say "a migration service: its token, and its key, whose private half stays with it"
bin/logserver token -config "$work/log/config.yaml" -principal crm-migrator -role migration-service >"$work/crm.token"
bin/logserver token -config "$work/log/config.yaml" -principal auditor -role auditor >"$work/auditor.token"
bin/logserver keys new -principal crm-migrator -out "$work/crm.key" >"$work/crm.pub"
bin/logserver key add -config "$work/log/config.yaml" -principal crm-migrator -vkey "$(head -n 1 "$work/crm.pub")"

say "it moves 100,000 customers with their orders and invoices, and logs every step"
service=(-url "$url" -token-file "$work/crm.token" -log-vkey "$work/log/log.vkey" -principal crm-migrator -key "$work/crm.key")
bin/crm -dir "$work/crm" -customers "${DEMO_CUSTOMERS:-100000}" -out "$work/kept" "${service[@]}"

say "OpenLineage events of real Spark, Airflow and dbt runs, and the specification's example, as payloads"
find examples/openlineage/testdata -name '*.json*' -print0 | sort -z | xargs -0 bin/crm replay -dir "$work/replay" "${service[@]}"

say "the auditor takes the evidence, and gets the keys by another channel"
bin/logserver export -url "$url" -token-file "$work/auditor.token" -log-vkey "$work/log/log.vkey" -migration crm-2026 -migration openlineage-replay -out "$out/evidence"
cp "$work/log/policy" "$out/policy"
echo "crm-migrator $(head -n 1 "$work/crm.pub")" >"$out/submitters"
stop

say "the server is stopped; it checks its own files from the ground up"
bin/logserver fsck -config "$work/log/config.yaml"

say "somebody changes one byte of one payload"
cp -r "$out/evidence" "$out/tampered"
victim=$(find "$out/tampered/payloads" -name '*.payload' -size +40c | sort | awk '{ f[NR] = $0 } END { print f[int(NR / 2)] }')
byte=$(dd if="$victim" bs=1 skip=20 count=1 status=none)
if [ "$byte" = 9 ]; then other=8; else other=9; fi
printf %s "$other" | dd of="$victim" bs=1 seek=20 conv=notrunc status=none
if cmp "$victim" "$out/evidence/${victim#"$out/tampered/"}"; then echo "$victim is as it was" >&2; exit 1; fi

# No network is left to a process in its own network namespace, where the system allows one.
offline=()
if unshare -rn true 2>/dev/null; then
	offline=(unshare -rn)
	say "the audit, without a network: the evidence as it was exported, and the tampered copy"
else
	say "the audit: the evidence as it was exported, and the tampered copy"
	echo "NOT RUN: network isolation: unshare -rn is refused here, so nothing but its code keeps the verifier from the network"
fi
audit() { # directory, wanted exit code
	local code=0 command="bin/verifier verify -policy $out/policy -submitters $out/submitters $1"
	printf '\n$ %s\n' "$command"
	${offline[@]+"${offline[@]}"} $command || code=$? # an empty array is unset in older bash
	echo "exit code $code, expected $2"
	[ "$code" = "$2" ]
}
audit "$out/evidence" 0
audit "$out/tampered" 1
say "demo/out has the evidence; run the two commands again, or read one: $(find "$out/evidence/events" -name '*.json' | sort | tail -n 1)"
echo "demo: $SECONDS s"
