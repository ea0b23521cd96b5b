"""The bridge from metatrain: its trained ``soap_bpnn`` checkpoints become ours.

``_unpack.py`` runs where metatrain is installed and writes plain data; ``weights.py`` rearranges them;
``command.py`` is ``atomtrain import-metatrain``. Nothing else here knows of metatrain.
"""
