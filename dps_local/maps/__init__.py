"""What scoring found, on disk: head maps, cluster maps, their overlap, and maps baked into models."""
