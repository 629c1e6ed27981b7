"""Mappings that are proven best over the whole space of mappings, or within a stated gap of it."""
