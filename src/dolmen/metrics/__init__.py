"""Thin wrappers over well-kept metric libraries."""
