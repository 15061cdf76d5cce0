"""Pictures of results, for the terminal and as files: head maps, overlaps, explanations."""
