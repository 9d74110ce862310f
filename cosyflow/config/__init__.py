"""The settings of every part, as dataclasses that refuse what is impossible."""
