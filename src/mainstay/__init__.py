"""Mainstay takes an AI pilot to production and keeps it there."""

from importlib.metadata import version

__version__ = version("mainstay-ai")
