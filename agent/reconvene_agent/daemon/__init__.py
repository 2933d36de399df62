"""The light process: owns the state, talks to the fleet, starts a worker for each job. Never imports torch or numpy.

``agent`` decides, from events in to effects out, by what ``commands``, ``board`` and ``reporting`` hold. ``service`` runs it and
carries the effects out, by ``broker``, ``storage`` and ``worker``. ``probe`` and ``security`` serve both.
"""
