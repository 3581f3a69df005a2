"""The version of plstore, which every record of what was made names."""

__version__ = "0.6.0"
