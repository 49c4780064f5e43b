"""Measurements side by side with peers; each module but `report` and `processes` answers one question."""
