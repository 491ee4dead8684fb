"""What runs on a Ray cluster: a job per task, which leaves its result in parts in the run's folder."""
