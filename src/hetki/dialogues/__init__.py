"""Dialogues: saying it: templates, messages, destinations."""
