"""Contract tests that others can inherit, for an engine or a tracker of their own."""
