"""The command line: a file for each command, their options, and the terminal that they print to."""
