"""A server that does exactly what it is told, and tells exactly what it did."""
