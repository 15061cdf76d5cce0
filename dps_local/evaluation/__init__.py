"""Does steering help? Ways of answering, compared on what users really wrote."""
