"""Conversations that last: one SQLite file of the user's, the chat that is kept in it, and what is made of it."""
