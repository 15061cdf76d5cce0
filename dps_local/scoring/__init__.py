"""Which heads matter, and is it worth it: ablation, statistics, calibration on held-out text, clusters."""
