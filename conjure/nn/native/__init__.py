"""One pass of a decoder in a small piece of C++, compiled on the user's machine at its first use."""
