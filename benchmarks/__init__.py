"""One program a question; each checks the answer before it times anything."""
