"""The light process: owns the state, talks to the fleet, starts a worker for each job. Never imports torch or numpy."""
