package disk

// Space is the room on a file system, as a process without privileges sees it.
type Space struct {
	UsedBytes, FreeBytes   uint64
	UsedInodes, FreeInodes uint64 // both 0 where inodes are made as they are needed
}
