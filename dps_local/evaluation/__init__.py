"""Does steering help? Conditions (methods with their settings) are compared on what users really wrote."""
