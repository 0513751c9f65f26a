package main

// clientCommands are those that talk to a server.
func clientCommands() []command { return nil }
