"""Importing: a profile from what a person has already written, in mail, chats, notes and commits.

Each format has a file of its own that finds the person's words in a source; what they share is cleaned, masked and
counted in one place.
"""
