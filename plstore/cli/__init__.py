"""The shell door: parse, call, print."""
