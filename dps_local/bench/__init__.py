"""What decoding and scoring cost, as ratios to what llama.cpp does by itself."""
