"""The command line: options, commands, and the terminal that they print to."""
