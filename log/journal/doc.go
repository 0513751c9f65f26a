// Package journal is the embedded engine of a log: the durable order of its records in segment files, with group
// commit, and their payloads, sealed and erasable in place.
//
// A record is acknowledged when it is synced at its final index. Everything else that the log shows (tiles, index,
// folds) follows from the journal and can be grown back from it. The package leaves out what entries mean, the tree,
// and when an erasure is right. It trusts the medium to keep what a sync reported, and a sector to be either old or
// new where a write changes part of it (only erasures write over durable bytes); it does not trust the page cache
// after a failed sync, nor anything on disk without its checksum. CRCs find accidents. Against somebody who edits the
// files the tree head protects, and the commitment in each entry; a seal that does not open is found as well.
//
// # Files
//
//	journal                    identity: "piperoll journal 1\n", 16 random bytes in hex, their CRC in hex
//	lock                       held by the process that has the journal open
//	segments/NNNNNNNNNN.seg    records, numbered from 0
//	tables/NNNNNNNNNN.tab      where the records of a sealed segment are; derived, can be deleted
//	keys/NNNNNNNNNN.key        key slots of 32 bytes; leave this folder out of backups that outlive an erasure
//	large/NNNNNNNNNN/SSSSSSS.sealed  sealed payloads of LargeBytes and more, by key file and slot
//
// Integers are little-endian. CRC is CRC32C (Castagnoli).
//
// # Segment
//
// A segment is made ahead, filled with zeros and synced, so that a commit changes no metadata. Sector 0 (512 bytes) is
// its header, all zeros while it is a spare:
//
//	 0  8  "prjseg/1"          40  8  epoch                     72  8  synced: bytes of this segment that
//	 8  4  CRC of 16..511      48  8  index of first record            were synced before this header
//	12  4  0                   56  8  size as prepared          80  8  number of the segment before
//	16 16  identity            64  8  bytes used of the         88  4  CRC of the last record before
//	32  8  number                     segment before            92     0
//
// The header of a segment is what ends the one before it: where, with which record, and with which CRC. A sealed segment
// is cut to that length. Numbers between the two, if any, belong to segments that a recovery gave up; they are void.
// A header is confirmed when a group behind it says that it was synced. The tail is the last segment whose header is
// confirmed. Segment 0 is a header alone and needs no confirmation.
//
// # Group
//
// A group is what one write puts on disk; it begins at a sector and is padded with zeros to the next:
//
//	0  4  "PRG1"              16  8  index of first record     32  4  number of records
//	4  4  CRC of identity,    24  4  synced                    36  4  CRC of the record before
//	      number (8), offset  28  4  bytes of records          40  4  CRC of the last record
//	      (8), 8..63           8  8  epoch                     44 20  0
//
// "synced" is the offset in this segment up to which everything was synced when the group was written: its own offset,
// or 0 for the first group of a segment that was written together with the header, and for what recovery copies. A
// group without records is a mark. It is written and synced when the journal has been idle for a quarter of a second,
// and by Close, and says that the group before it was synced.
//
// # Record
//
//	 0  4  CRC of the record before it     24  4  bytes of the entry, 1..65535
//	 4  4  CRC of 8.. to the end of the    28  4  kind: 0 no payload, 1 inline, 2 in a file of
//	       entry, seeded with 0..3                its own, 3 inline and lasting
//	 8  8  index                           32  4  key file       (32..47 only with a payload)
//	16  8  epoch                           36  4  key slot       (both 0 for kind 3)
//	       entry, then (kinds 1 and 3)     40  4  sealed bytes
//	       the sealed bytes                44  4  CRC of the sealed bytes
//
// The chain of CRCs goes through all records of all segments. It covers the CRC of the sealed bytes, not the bytes, and
// so survives their erasure. A batch lies in one group, and a group counts only as a whole: all its records good, and
// their sealed bytes too, unless the key slot is zero.
//
// # Payloads
//
// sealed = nonce (12) || AES-256-GCM(key, salt (32) || payload) || tag (16), with additional data
// "piperoll/sealed/v1\n" || identity || key file (4, big-endian) || slot (4, big-endian).
// A lasting payload, which the folds need and which is never erased, is not sealed: salt (32) || payload. So a backup
// that leaves out the keys has all that a log needs to be opened and its folds to be computed again.
// A key seals one payload that reaches the disk. A payload that is given up gives its slot back, with another key if it
// had a file of its own, which then never opens. Key file N is drawn and synced before segment N is used. Records of
// segment N use key files N-1 and N (and N-2, where recovery copied them), never N+1: a payload that got a key of the
// next file, because the slots of this one are used up, ends the segment. An all-zero slot is an erased one.
// Keys that no record uses are zeroed once no record can come.
//
// # Recovery
//
// Open reads the headers, then walks the last segment that has one. If its header is not confirmed, it may be in the
// page cache only, left by a process that was killed: then Open walks the segment before as well, that one is the tail,
// and what only the unconfirmed one holds (one group) is doubtful. The first place of the tail without a whole,
// well-chained group of its epoch is the end, unless that cannot be the work of a crash, which is ErrCorrupt:
//
//   - any valid group header behind it in the segment says that the place was synced;
//   - a segment behind has a group that says its own lost header was synced, or that follows records not found;
//   - somebody else knows of more durable records (Config.AtLeast).
//
// The last group of the tail is doubtful too: nothing says that it was synced, and if the sync failed it is in the page
// cache only, from where it cannot be synced again. Then Open begins the next segment, under a new epoch, which is
// random in its lower half, so nothing that a crashed writer or a crashed recovery left behind passes for a group of
// this one: doubtful records are copied into it and synced, then its header, which ends the tail in front of them, then
// a mark, which confirms the header. Only then is the old tail cut.
package journal
