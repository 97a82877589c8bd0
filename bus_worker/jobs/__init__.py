"""Durable work: long recordings cut into windows, their transcripts joined to one."""

__all__: list[str] = []
