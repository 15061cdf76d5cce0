"""How heads change the next token: mixing, γ, the contrast of two streams and its decoder."""
