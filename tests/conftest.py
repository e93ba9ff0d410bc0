"""What holds for all tests: none of them judges how quick the machine is.

Never a place for fixtures: those stand in support/, where each test says which it uses.
"""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
