"""The `vitedge` command, a module for each command or group: parse, one call, show."""
