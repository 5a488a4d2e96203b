"""Models: from a name, a path or a reference to a file and its identity.

``shelf`` gets a model by what the user wrote; ``identity`` says what it is, ``needs`` what it
takes of a memory. ``gguf`` and ``safetensors`` read headers.
"""
