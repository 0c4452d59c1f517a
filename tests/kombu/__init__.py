"""One exam for two transports: what stock ``redis://`` passes, ``phonon://`` passes as well.

Every test runs with both schemes. A test marked ``phonon_only(reason)`` asks for something that
the stock transport is known to get wrong; the reason says what stock does instead.
"""
