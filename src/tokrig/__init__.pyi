from tokrig.query import load as load

__version__: str
