"""What runs on a machine, how long its context may be, and how fast it is expected to be. Pure.

``evidence`` takes from records what each of them says of a model and its machine, ``estimate``
says from it what to expect of a model that nobody has measured there, and how far off that was
where somebody has, ``place`` says where a model goes and joins all of it in one row a model.
"""
