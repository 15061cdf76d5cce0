"""A conversation: turns, the session that answers them, and the explanation of an answer."""
