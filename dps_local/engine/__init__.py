"""llama.cpp as arrays: models, contexts, streams of tokens, samplers. Knows no user."""
