"""The foundation that all three sides stand on: words, wire, link, errors, settings."""
