"""``atomtrain new``: the template of an architecture's project and what renders it.

``project/`` is the cookiecutter template (its files are no Python until they are rendered),
``render`` fills it in, ``command`` asks for what has to be filled in. No architecture lives here.
"""

__version__ = "0.1.0"
