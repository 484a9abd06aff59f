"""The rules that every IR keeps, by subject; ``validate.py`` has the table of them."""
