"""Everything under /v1: OpenAI's audio API, to the letter."""
