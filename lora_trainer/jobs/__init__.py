"""What a run that works by itself tells, and how it is asked to stop. Standard library only."""
