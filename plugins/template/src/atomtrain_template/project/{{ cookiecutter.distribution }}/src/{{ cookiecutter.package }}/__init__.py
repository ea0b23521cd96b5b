"""The architecture {{ cookiecutter.name }} for atomtrain."""
