"""The report of an evaluation: as Markdown, as one HTML page with figures, and in short for the terminal."""
