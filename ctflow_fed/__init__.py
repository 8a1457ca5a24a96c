"""Federated generation of synthetic chest CT, after CTFlow (arXiv 2508.12900)."""

__version__ = "0.1.0"
__all__ = ["__version__"]
