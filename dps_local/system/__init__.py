"""What the operating system gives: files, the cache folder, memory, the stack. Knows no model."""
