"""The field's own evaluations of a dictionary, each with its chance level: docs/evaluations.md has definitions."""
