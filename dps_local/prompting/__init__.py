"""Who the user is, and how a prompt shows it: profile, retrieval, chat template, prompt."""
