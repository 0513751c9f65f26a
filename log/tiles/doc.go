// Package tiles integrates the log's durable order into a Merkle tree in the layout of c2sp.org/tlog-tiles, signs its
// heads, publishes checkpoints (c2sp.org/tlog-checkpoint) and serves the static resources.
//
// Everything it writes but the anchor and the checkpoints is derived from the entries and grows back from them. So it
// keeps out of the way of the commits that callers wait for: one small sync per round, and the tiles' files are
// synced one at a time behind it.
//
// # Files
//
//	Dir/checkpoint                 the published checkpoint, for other servers of static files; we serve it from memory
//	Dir/tile/L/N[.p/W]             tiles; partial ones of the latest published checkpoints
//	Dir/tile/entries/N[.p/W]       entry bundles
//	StateDir/lock                  held while a Tree is open
//	StateDir/recovery              the size up to which all full tiles and bundles are synced, and its root
//	StateDir/checkpoints/ORDINAL   published checkpoints, append-only
//	StateDir/tmp/                  files being written, outside what is served
//	AnchorDir/anchor               the head that was signed last, and when
//
// recovery and anchor have two slots of 512 bytes at offsets 0 and 4096, overwritten in turn: label (24 bytes, padded
// with zeros), sequence number, size (8 bytes each, big endian), root (32), time (8, Unix milliseconds), SHA-256 of
// the origin (32), zeros, and SHA-256 of all that (the last 32). The valid slot with the higher number counts.
//
// A file of checkpoints is 1 MiB of zeros into which records are written at multiples of 64: length (4 bytes, big
// endian), CRC-32C of length, size and note (4), size (8), note.
//
// # What is refused, what is healed
//
// Nothing is signed that does not extend the anchor: the entries must give the anchor's root at the anchor's size.
// Open refuses ([ErrRefused]) when they do not, when there are fewer, and whenever something durable is missing,
// damaged, older than what it should follow, or from another log: anchor, recovery point, checkpoints, and the full
// tiles and the last bundle below the recovery point.
// It heals from the entries, once these have given the anchor's root, what may be lost in a crash because it is never
// synced before the recovery point passes it: full tiles and bundles above the recovery point, partial tiles, and the
// file Dir/checkpoint. That cannot change what is signed. Config.Rebuild extends this to all derived files. Old full
// tiles that nothing reads at the start are compared by [Tree.Check], and proven under the signed head by [Tree.Tile]
// before anyone gets them.
//
// One fault cannot be told from a crash by the anchor alone: its newer slot damaged within a second of being written
// (an idle log has the head in both slots). The older slot then counts; the entries still give one root for every
// size, so this forks nothing unless the entries are rolled back at the same moment.
package tiles
