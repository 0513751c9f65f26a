#!/usr/bin/env bash
# Logs one event with curl and openssl: chained, committed and signed by the submitter's
# own key, as log/FORMAT.md says (sections 2 to 4). What the log answers is not believed:
# the entry is put together here, of our event and the log's part, for the verifier.
#
#   curl.sh URL TOKEN-FILE ORIGIN PRINCIPAL KEY.pem MIGRATION NAME JSON
#
# opens the stream MIGRATION/NAME, appends the JSON (in RFC 8785 form) as payload of an
# event x.note, and leaves entry.json, entry.receipt and entry.tlog-proof.
#
# It leaves out what log/client does: trying again after a lost answer (the same bytes
# again are safe), going on with a stream, and checking the receipt before it goes on.
set -euo pipefail
url=$1 token=$(cat "$2") origin=$3 me=$4 pem=$5 migration=$6 stream=$6/$7 json=$8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

b64() { base64 | tr -d '\n'; }
sha256() { openssl dgst -sha256 -binary; }
public() { openssl pkey -in "$pem" -pubout -outform DER | tail -c 32; }
key_id=$({ printf ed25519; public; } | sha256 | b64)

# request KIND SEQ PREV PAYLOAD: sends one event, and leaves $event, $hash, $part, $sig and $answer.
request() {
	local salt time commitment
	openssl rand 32 >"$work/salt"
	salt=$(od -An -v -tx1 "$work/salt" | tr -d ' \n')
	commitment=$(printf 'piperoll/commit/v1\napplication/json\n%s' "$4" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$salt" -binary | b64)
	time=$(date +%s)000
	event='{"actor":"'$me'","kind":"'$1'","log":"'$origin'","migration":"'$migration'","objects":[],"payload":{"commitment":"'$commitment'","scheme":"whole-1","type":"application/json"},"prev":"'$3'","seq":'$2',"stream":"'$stream'","time":'$time',"v":1}'
	hash=$(printf 'piperoll/event/v1\n%s' "$event" | sha256 | b64)
	# The tail signature covers the events of the request: here one, the first and the last.
	printf 'piperoll/tail/v1\n%s\n%s\n%s\n%s\n%s\n' "$origin" "$stream" "$2" "$2" "$hash" >"$work/tail"
	sig='{"alg":"ed25519","key":"'$key_id'","sig":"'$(openssl pkeyutl -sign -rawin -inkey "$pem" -in "$work/tail" | b64)'"}'
	answer=$(printf '{"event":%s,"payload":%s,"salt":"%s","sig":%s}' "$event" "$4" "$(b64 <"$work/salt")" "$sig" |
		curl -sS --fail-with-body -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -H 'Prefer: wait=5' --data-binary @- "$url/v1/events") ||
		{ echo "$answer" >&2; exit 1; }
	part=$(sed 's/.*"log":\[\({[^}]*}\)\].*/\1/' <<<"$answer")
}

start=$(printf 'piperoll/stream/v1\n%s\n%s' "$origin" "$stream" | sha256 | b64)
request stream.open 1 "$start" '{"keys":[{"alg":"ed25519","key":"'$(public | b64)'"}],"mode":"signed","owner":"'$me'","v":1}'
request x.note 2 "$hash" "$json"
index=$(sed 's/.*"index":\([0-9]*\),.*/\1/' <<<"$answer")
printf '{"event":%s,"log":%s,"sig":%s,"v":1}' "$event" "$part" "$sig" >entry.json
printf '%b' "$(sed 's/.*"receipt":"\([^"]*\)".*/\1/' <<<"$answer")" >entry.receipt
curl -sSf -H "Authorization: Bearer $token" "$url/v1/proofs/inclusion/$index" >entry.tlog-proof
echo "entry $index of $origin: entry.json entry.receipt entry.tlog-proof"
