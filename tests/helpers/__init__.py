"""What the tests of several rooms and distributions share; on the path of all (pytest.ini)."""
