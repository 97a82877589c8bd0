"""Hears: one stage per file; drop yours beside ours."""
