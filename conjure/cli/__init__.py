"""Level 6: the command line. Parse, look up, call; each command is imported when it is used."""
