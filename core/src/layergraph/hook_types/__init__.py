"""The types of the answers to hooks: formats, passes, lowerings, structures, and so on."""
