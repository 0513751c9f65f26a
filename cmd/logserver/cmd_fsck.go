package main

import (
	"context"
	"io"
)

func cmdFsck(ctx context.Context, args []string, out, errOut io.Writer, _ io.Reader) int {
	return exitFailed
}
