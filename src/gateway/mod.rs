//! The guest's doors: what a run's sandbox can reach, and nothing else.
