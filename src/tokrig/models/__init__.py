"""Models: from a name or a path to a file and its identity.

``catalog`` turns a word the user typed into a file; ``gguf`` reads the file's header and says
what the file is. Files whose names begin with an underscore are their parts.
"""
