"""Everything that crosses a boundary, as pydantic models.  Imports nothing else of ours."""
