"""A package, so that fixtures of package scope end with this folder's last test."""
