"""Media to what networks see, and back."""
