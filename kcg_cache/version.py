"""The version of the library, where everyone below ``kcg_cache`` itself can have it from."""

__version__ = "0.1.0"
